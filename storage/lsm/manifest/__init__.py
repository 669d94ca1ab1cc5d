"""Manifests: read, committed, watched."""
