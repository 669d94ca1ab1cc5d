"""The NBD protocol as pure functions of bytes: no sockets, no event loop, no storage."""
