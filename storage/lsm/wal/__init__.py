"""The write-ahead log: from the queue of a layer to numbered objects, and back."""
