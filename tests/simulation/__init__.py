"""Worlds: the real engine with clients, faults, crashes and other writers, in virtual time, from one seed each."""
