"""An NBD server that turns a bucket into disks."""

__version__ = "0.1.0"
