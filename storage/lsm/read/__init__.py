"""How a range of a layer is read, and which parts of it hold data."""
