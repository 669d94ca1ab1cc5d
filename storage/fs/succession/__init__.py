"""The succession of writers: what one leaves in the store for the next, and how that one knows that it has ended."""
