"""What answers BLOCK_STATUS of one client: the maps of the metadata contexts that were agreed on."""

from collections.abc import Collection, Mapping

from nbdserver.exports import StatusMap
from nbdserver.protocol import wire
from nbdserver.protocol.replies import ChunkedReplies
from storage.errors import NotFound
from storage.units import MIB

EFFORT_BYTES, LONG_EFFORT = 64 * MIB, 16
"""A request for 1 GiB takes as much as one for more does: 3 ms at most, whatever the device holds."""


class BlockStatus:
    """The maps by the numbers of their contexts. `only` are the numbers that a request names; None: all."""

    def __init__(self, maps: Mapping[int, StatusMap]) -> None:
        self._maps = maps

    def effort(self, length: int, only: Collection[int] | None) -> int:
        """How much work it is (`EFFORT_MAX` of `admission`)."""
        each = sum(status_map.effort for number, status_map in self._maps.items() if only is None or number in only)
        return min(1 + length // EFFORT_BYTES, LONG_EFFORT) * each

    def answer(
        self,
        replies: ChunkedReplies,
        cookie: bytes,
        offset: int,
        length: int,
        *,
        one: bool,
        only: Collection[int] | None,
    ) -> bytes:
        """The chunks of one answer; that it is an error if what one of the contexts is about is gone."""
        wanted = [number for number in self._maps if only is None or number in only]
        try:
            found = {number: self._maps[number].extents(offset, length) for number in wanted}
        except NotFound as error:
            return replies.error(cookie, wire.EINVAL, str(error))
        return b"".join(
            replies.status(cookie, number, extents, length, one=one, last=number == wanted[-1])
            for number, extents in found.items()
        )
