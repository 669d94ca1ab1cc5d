"""The tree of names as plain data: inodes and layers, what records do to them, and what may be done. No I/O."""
