"""TLS below NBD, on real sockets."""
