"""Commands for snapshots, and the replication of a device into a second store."""
