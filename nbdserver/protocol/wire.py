"""Every number and fixed layout of the NBD protocol that the server speaks.

Names are those of the specification (NetworkBlockDevice/nbd, doc/proto.md) without the prefix `NBD_`, grouped
under its headings. All integers are big-endian. Plain integers, not enumerations: the request loop compares
them a hundred thousand times a second.
"""

import struct
from typing import Final

# Handshake: magic numbers and flags

NBDMAGIC: Final = 0x4E42444D41474943
IHAVEOPT: Final = 0x49484156454F5054
OPTION_REPLY_MAGIC: Final = 0x3E889045565A9

FLAG_FIXED_NEWSTYLE: Final = 1 << 0
FLAG_NO_ZEROES: Final = 1 << 1

FLAG_C_FIXED_NEWSTYLE: Final = 1 << 0
FLAG_C_NO_ZEROES: Final = 1 << 1

# Handshake: transmission flags

FLAG_HAS_FLAGS: Final = 1 << 0
FLAG_READ_ONLY: Final = 1 << 1
FLAG_SEND_FLUSH: Final = 1 << 2
FLAG_SEND_FUA: Final = 1 << 3
FLAG_SEND_TRIM: Final = 1 << 5
FLAG_SEND_WRITE_ZEROES: Final = 1 << 6
FLAG_SEND_DF: Final = 1 << 7
FLAG_CAN_MULTI_CONN: Final = 1 << 8
FLAG_SEND_CACHE: Final = 1 << 10
FLAG_SEND_FAST_ZERO: Final = 1 << 11
FLAG_BLOCK_STATUS_PAYLOAD: Final = 1 << 12

# Handshake: options

OPT_EXPORT_NAME: Final = 1
OPT_ABORT: Final = 2
OPT_LIST: Final = 3
OPT_STARTTLS: Final = 5
OPT_INFO: Final = 6
OPT_GO: Final = 7
OPT_STRUCTURED_REPLY: Final = 8
OPT_LIST_META_CONTEXT: Final = 9
OPT_SET_META_CONTEXT: Final = 10
OPT_EXTENDED_HEADERS: Final = 11

# Handshake: option replies

REP_ACK: Final = 1
REP_SERVER: Final = 2
REP_INFO: Final = 3
REP_META_CONTEXT: Final = 4
REP_ERR_UNSUP: Final = (1 << 31) + 1
REP_ERR_POLICY: Final = (1 << 31) + 2
REP_ERR_INVALID: Final = (1 << 31) + 3
REP_ERR_TLS_REQD: Final = (1 << 31) + 5
REP_ERR_UNKNOWN: Final = (1 << 31) + 6
REP_ERR_TOO_BIG: Final = (1 << 31) + 9
REP_ERR_EXT_HEADER_REQD: Final = (1 << 31) + 10

INFO_EXPORT: Final = 0
INFO_NAME: Final = 1
INFO_DESCRIPTION: Final = 2
INFO_BLOCK_SIZE: Final = 3

# Transmission: requests

REQUEST_MAGIC: Final = 0x25609513
EXTENDED_REQUEST_MAGIC: Final = 0x21E41C71

CMD_READ: Final = 0
CMD_WRITE: Final = 1
CMD_DISC: Final = 2
CMD_FLUSH: Final = 3
CMD_TRIM: Final = 4
CMD_CACHE: Final = 5
CMD_WRITE_ZEROES: Final = 6
CMD_BLOCK_STATUS: Final = 7

CMD_FLAG_FUA: Final = 1 << 0
CMD_FLAG_NO_HOLE: Final = 1 << 1
CMD_FLAG_DF: Final = 1 << 2
CMD_FLAG_REQ_ONE: Final = 1 << 3
CMD_FLAG_FAST_ZERO: Final = 1 << 4
CMD_FLAG_PAYLOAD_LEN: Final = 1 << 5

# Transmission: replies

SIMPLE_REPLY_MAGIC: Final = 0x67446698
STRUCTURED_REPLY_MAGIC: Final = 0x668E33EF
EXTENDED_REPLY_MAGIC: Final = 0x6E8A278C

REPLY_FLAG_DONE: Final = 1 << 0

REPLY_TYPE_NONE: Final = 0
REPLY_TYPE_OFFSET_DATA: Final = 1
REPLY_TYPE_OFFSET_HOLE: Final = 2
REPLY_TYPE_BLOCK_STATUS: Final = 5
REPLY_TYPE_BLOCK_STATUS_EXT: Final = 6
REPLY_TYPE_ERROR: Final = (1 << 15) + 1
REPLY_TYPE_ERROR_OFFSET: Final = (1 << 15) + 2

# Transmission: error values

EPERM: Final = 1
EIO: Final = 5
EINVAL: Final = 22
ENOSPC: Final = 28
EOVERFLOW: Final = 75
ESHUTDOWN: Final = 108

# Size constraints

STRING_BYTES_MAX: Final = 4096
"""Longest string of the protocol: export names, error messages, queries."""

BLOCK_BYTES_MIN: Final = 1
BLOCK_BYTES_PREFERRED: Final = 4096
PAYLOAD_BYTES_MAX: Final = 32 << 20
"""Maximum payload of one request: what the specification asks every server to take."""

# Fixed layouts

GREETING = struct.Struct(">QQH")
"""64 bits NBDMAGIC, 64 bits IHAVEOPT, 16 bits handshake flags."""

CLIENT_FLAGS = struct.Struct(">I")
"""32 bits client flags."""

OPTION = struct.Struct(">QII")
"""64 bits IHAVEOPT, 32 bits option, 32 bits length of the data that follows."""

OPTION_REPLY = struct.Struct(">QIII")
"""64 bits OPTION_REPLY_MAGIC, 32 bits option, 32 bits reply type, 32 bits length of the data that follows."""

EXPORT = struct.Struct(">QH")
"""64 bits size of the export, 16 bits transmission flags: the answer to EXPORT_NAME, and in INFO_EXPORT."""

EXPORT_PADDING = bytes(124)
"""What follows the answer to EXPORT_NAME unless NO_ZEROES was agreed on."""

REQUEST = struct.Struct(">Q8sQI")
"""32 bits REQUEST_MAGIC, 16 bits command flags and 16 bits type (taken as one 64-bit number, so that one
comparison knows a plain READ), 64 bits cookie (opaque, so it stays bytes), 64 bits offset, 32 bits length."""

REQUEST_BYTES = REQUEST.size

EXTENDED_REQUEST = struct.Struct(">Q16sQ")
"""32 bits EXTENDED_REQUEST_MAGIC, 16 bits command flags and 16 bits type (one number), 64 bits cookie and 64 bits
offset (one string, as the reply repeats them), 64 bits length."""

COOKIE_OFFSET = struct.Struct(">Q")
"""64 bits offset, 8 bytes into the cookie and offset of an extended request."""

EXTENDED_REQUEST_BYTES = EXTENDED_REQUEST.size

STATUS_FILTER = struct.Struct(">Q")
"""What the payload of a BLOCK_STATUS begins with: 64 bits length of the range. 32 bits for each context follow."""


class ProtocolError(Exception):
    """The peer broke the protocol in a way that leaves no way to go on: the connection ends, nothing is
    answered."""


class OptionRefused(Exception):
    """One option is answered with the error `reply`; negotiation goes on. The message is shown to people."""

    def __init__(self, reply: int, message: str) -> None:
        super().__init__(message)
        self.reply = reply


def quoted(name: str) -> str:
    """A name from the wire for a message: at most 80 characters of it, nothing unprintable."""
    return ascii(name[:80])
