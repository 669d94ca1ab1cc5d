"""Which commands the transmission phase has (`COMMANDS`), and which requests are valid. Pure."""

from dataclasses import dataclass

from nbdserver.protocol import wire


@dataclass(frozen=True, slots=True)
class RequestRefusal:
    """Why a request is answered with an error, whose number is the protocol's (NBD_E...)."""

    error: int
    message: str


@dataclass(frozen=True, slots=True)
class Command:
    """What makes a request of one type valid; `beyond` is the error for a range that reaches past the end."""

    name: str
    flags: int
    beyond: int = wire.EINVAL
    writes: bool = False


# FUA is accepted on every command, as the specification demands ("Command flags"); it means something on
# those that write. PAYLOAD_LEN is no matter of the command alone: see `extended`.
COMMANDS = {
    wire.CMD_READ: Command("READ", wire.CMD_FLAG_FUA | wire.CMD_FLAG_DF),
    wire.CMD_WRITE: Command("WRITE", wire.CMD_FLAG_FUA, beyond=wire.ENOSPC, writes=True),
    wire.CMD_FLUSH: Command("FLUSH", wire.CMD_FLAG_FUA),
    wire.CMD_TRIM: Command("TRIM", wire.CMD_FLAG_FUA, writes=True),
    wire.CMD_CACHE: Command("CACHE", wire.CMD_FLAG_FUA),
    wire.CMD_WRITE_ZEROES: Command(
        "WRITE_ZEROES",
        wire.CMD_FLAG_FUA | wire.CMD_FLAG_NO_HOLE | wire.CMD_FLAG_FAST_ZERO,
        beyond=wire.ENOSPC,
        writes=True,
    ),
    wire.CMD_BLOCK_STATUS: Command("BLOCK_STATUS", wire.CMD_FLAG_FUA | wire.CMD_FLAG_REQ_ONE),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the requests of one connection are checked against.

    `structured`: replies are structured or extended, so DF may be asked for. `block_status`: a metadata context
    was selected for this export.
    """

    read_only: bool
    structured: bool
    block_status: bool

    def judge(self, command: int, flags: int, offset: int, length: int, *, size: int) -> RequestRefusal | None:
        """What is wrong with a request to an export of `size` bytes ("Error values"), or None."""
        known = COMMANDS.get(command)
        if known is None:
            return RequestRefusal(wire.EINVAL, f"command {command} is not known")
        forbidden = flags & ~known.flags
        if not self.structured:
            forbidden |= flags & wire.CMD_FLAG_DF
        if forbidden:
            return RequestRefusal(wire.EINVAL, f"{known.name} does not take the flags {forbidden:#x}")
        if known.writes and self.read_only:
            return RequestRefusal(wire.EPERM, "the export is read-only")
        if command == wire.CMD_FLUSH:
            return RequestRefusal(wire.EINVAL, "FLUSH takes neither offset nor length") if offset or length else None
        if command == wire.CMD_BLOCK_STATUS and not self.block_status:
            return RequestRefusal(wire.EINVAL, "no metadata context was selected for this export")
        if command == wire.CMD_BLOCK_STATUS and not length:
            return RequestRefusal(wire.EINVAL, "BLOCK_STATUS needs a length")
        if offset + length > size:
            return RequestRefusal(known.beyond, f"{known.name} reaches past the end of the export")
        if length > wire.PAYLOAD_BYTES_MAX and command == wire.CMD_READ:
            error = wire.EOVERFLOW if self.structured else wire.EINVAL
            return RequestRefusal(error, f"at most {wire.PAYLOAD_BYTES_MAX} bytes are read at once")
        if length > wire.PAYLOAD_BYTES_MAX and command == wire.CMD_WRITE:
            return RequestRefusal(wire.EINVAL, f"at most {wire.PAYLOAD_BYTES_MAX} bytes are written at once")
        return None
