"""Real NBD clients against the real program, on a folder store and on MinIO."""
