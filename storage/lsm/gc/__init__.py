"""Objects that nothing needs any more."""
