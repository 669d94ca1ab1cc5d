"""Ciphers, and the keys of a store."""
