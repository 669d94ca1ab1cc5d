"""Our server beside nbdkit and qemu-nbd: the same said to each, and what they answer compared."""
