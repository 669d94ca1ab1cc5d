"""The index in memory: where the newest flushed content of every block lies."""
