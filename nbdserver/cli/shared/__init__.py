"""What commands have in common: options, output, passwords, the way to a store, and how a command ends."""
