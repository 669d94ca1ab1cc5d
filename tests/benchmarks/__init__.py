"""Measurements behind the figures the project promises; run with scripts/bench."""
