"""The kernel's own NBD client: devices attached through netlink, and kept attached while servers come and go."""
