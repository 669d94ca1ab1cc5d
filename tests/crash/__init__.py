"""Crashes, take-overs and tampering of the real program: after each, a disk is a prefix of its writes."""
