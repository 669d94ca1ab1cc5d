"""The life of one client, from the listening socket to its last reply."""
