"""Mistakes planted into the code, one at a time, each for the tests that must fail with it."""
