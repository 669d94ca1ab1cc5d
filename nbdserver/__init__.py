"""An NBD server that turns a bucket into disks."""
