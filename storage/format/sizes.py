"""How large an object of each kind may be. What is larger is damage by its size alone, and none of it is read.

Whoever can put objects into the store, without the password, may choose their sizes. (The limit of a keys object is in
`storage.crypto.keyslots`, where it follows from the format; data SSTs are read in ranges that an authenticated index
names.)
"""

from storage.units import MIB

WAL_BYTES_MAX = 512 * MIB
"""One object holds what waited for the log at most: 256 MiB, and what was under way when the gate closed."""

MANIFEST_BYTES_MAX = 256 * MIB
"""Three million SSTs."""

TRAILER_BYTES_MAX = 512 * MIB
"""Of a checkpoint, from its second header on: eleven million SSTs at 48 bytes, which hold 10 TiB where they have 1 MiB
each. It is compressed and sealed as one, so whoever opens it needs several times as much memory. No checkpoint is
written whose trailer is longer: nobody could open it.
"""

TREE_BYTES_MAX = 256 * MIB
"""A million devices."""
