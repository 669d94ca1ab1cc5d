"""Object stores: one interface, several worlds."""
