"""Tests of promises: each folder mirrors a package, or drives the real program from outside."""
