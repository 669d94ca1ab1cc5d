"""How a running server is asked and told."""
