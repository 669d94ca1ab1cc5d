"""The memtable: what was written and is not flushed, in memory and within bounds."""
