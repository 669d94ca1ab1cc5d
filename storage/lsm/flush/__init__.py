"""Memtables become SSTs."""
