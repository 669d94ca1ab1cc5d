"""Snapshots of an open store: what makes them and what deletes them, for who asks, by a schedule, and by their age."""
