"""How a writer comes to own a store, and what its host remembers of it."""
