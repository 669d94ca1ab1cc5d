"""Formats of disk images, told by their first bytes: what is not a raw disk must not become one by mistake. Pure.

Sources: QEMU's block drivers, `file`'s magic, and the formats' specifications.
"""

HEAD_BYTES = 512
"""As much of the beginning as tells a format."""

TAIL_BYTES = 512
"""A fixed VHD is a raw disk with its mark behind it."""

_IMAGES = (
    (0, b"QFI\xfb", "a qcow2 image"),
    (0, b"QED\0", "a QED image"),
    (0, b"KDMV", "a VMDK image"),
    (0, b"COWD", "a VMDK image"),
    (0, b"# Disk DescriptorFile", "the description of a VMDK image"),
    (0x40, b"\x7f\x10\xda\xbe", "a VDI image"),
    (0, b"vhdxfile", "a VHDX image"),
    (0, b"conectix", "a VHD image"),
    (0, b"WithoutFreeSpace", "a Parallels image"),
    (0, b"WithouFreSpacExt", "a Parallels image"),
)

_PACKED = (
    (0, b"\x1f\x8b\x08", "compressed by gzip", "gzip -dc"),
    (0, b"BZh", "compressed by bzip2", "bzip2 -dc"),
    (0, b"\xfd7zXZ\0", "compressed by xz", "xz -dc"),
    (0, b"\x28\xb5\x2f\xfd", "compressed by zstd", "zstd -dc"),
    (0, b"\x04\x22\x4d\x18", "compressed by lz4", "lz4 -dc"),
)

_TAIL = (b"conectix", "a VHD image")


def is_no_raw_disk(name: str, head: bytes, tail: bytes) -> str | None:
    """The sentence with which to refuse a file of this name that begins (and ends) so; None: it may be a raw disk."""
    insist = "or give --format raw to import these very bytes"
    for offset, magic, what in _IMAGES:
        if head[offset:].startswith(magic):
            return _convert(name, what, insist)
    if tail.startswith(_TAIL[0]):
        return _convert(name, _TAIL[1], insist)
    for offset, magic, what, unpack in _PACKED:
        if head[offset:].startswith(magic):
            return f"{name} is {what}: import what {unpack} gives, as -, {insist}"
    return None


def _convert(name: str, what: str, insist: str) -> str:
    return (
        f"{name} is {what}, not a raw disk: convert it first with qemu-img convert -O raw {name} OTHER "
        f"and import that, {insist}"
    )
