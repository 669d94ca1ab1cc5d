"""The objects of a store in its bucket: listed, created once, read whole, asked for again; and how fast that goes."""
