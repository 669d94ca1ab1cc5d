"""The bucket as bytes: what every object holds, as functions of bytes. No store, no event loop, no threads."""
