"""Where the newest flushed content of every block lies."""
