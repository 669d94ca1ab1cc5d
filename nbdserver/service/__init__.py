"""The life of the process that serves."""
