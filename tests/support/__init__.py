"""What the tests stand on: a client of our own, the real program, MinIO, and tools whose lack is named."""
