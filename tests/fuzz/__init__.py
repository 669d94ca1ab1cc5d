"""Fuzzing of the protocol: whatever bytes a client sends, the only exceptions are those that end its connection."""
