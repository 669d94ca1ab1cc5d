"""Commands for what runs: the server, its state and its clients, and exports attached to this machine."""
