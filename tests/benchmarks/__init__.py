"""Measurements behind the figures the project promises; run with scripts/measure and scripts/bench."""
