"""Where other servers answer with another class than ours, and why that is right, or at least not our mistake."""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Difference:
    """What `server` answers to what `keys` matches (a regular expression), ours and theirs, and the reason."""

    server: str
    keys: str
    ours: str
    theirs: str
    reason: str

    def explains(self, server: str, key: str, ours: str, theirs: str) -> bool:
        return (
            server == self.server
            and re.fullmatch(self.keys, key) is not None
            and ours == self.ours
            and re.fullmatch(self.theirs, theirs) is not None
        )


DIFFERENCES = (
    Difference(
        "nbdkit", r"(WRITE|WRITE_ZEROES) .*", "EINVAL", "ENOSPC",
        "the request is wrong in its flags and in its range: nbdkit looks at the range first, we at the flags",
    ),
    Difference(
        "nbdkit", r".* 0", "ok", "EINVAL|ENOSPC",
        "requests of length 0 are unspecified: nbdkit refuses them, qemu and we let them succeed",
    ),
    Difference(
        "qemu-nbd", r"(WRITE|WRITE_ZEROES) .*", "ENOSPC", "EINVAL",
        "past the end the specification asks for ENOSPC (SHOULD); qemu answers EINVAL to every command",
    ),
    Difference(
        "nbdkit", r"(GO|INFO|SET) unknown( export)?", "ERR_UNKNOWN", "ACK",
        "nbdkit's memory plugin serves its disk under every name",
    ),
    Difference(
        "nbdkit", r"STARTTLS", "ERR_UNSUP", "ERR_POLICY",
        "without TLS either is right: nbdkit has it but is told not to use it",
    ),
    Difference("qemu-nbd", r"STARTTLS", "ERR_UNSUP", "ERR_POLICY", "the same"),
    Difference(
        "nbdkit", r"LIST_META.*", "ERR_INVALID", "ACK",
        "without structured replies a server MAY refuse LIST_META_CONTEXT; it could not be used",
    ),
    Difference("qemu-nbd", r"LIST_META.*", "ERR_INVALID", "ACK", "the same"),
    Difference(
        "qemu-nbd", r"STRUCTURED_REPLY", "ACK", "ERR_INVALID",
        "asked a second time; the specification does not say, and an acknowledgement does no harm",
    ),
)  # fmt: skip
