"""Data SSTs on their way into the store, and frames on their way out of it."""
