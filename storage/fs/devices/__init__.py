"""Devices of an open store: each a disk, who has it, what changed since its snapshots, and how it is filled."""
