"""The memtable flush: when it is due, and how memtables become SSTs."""
