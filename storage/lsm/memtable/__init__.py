"""What was written and is not flushed: in memory, within bounds."""
