"""The engine: a log-structured tree of block entries."""
