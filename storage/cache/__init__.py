"""Decoded frames in memory."""
