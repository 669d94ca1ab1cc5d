"""The storage engine: it knows blocks, bytes and buckets, and nothing of NBD."""
