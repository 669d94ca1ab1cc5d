"""Reads of a range of a layer, and extents: which parts of it hold data."""
