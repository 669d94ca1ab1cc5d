"""Garbage collection: objects that nothing needs any more are found and deleted."""
