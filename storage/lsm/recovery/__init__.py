"""Take-over and recovery: a writer comes to own a store, and its host remembers that."""
