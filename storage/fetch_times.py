"""Where the time of one read went that memory could not answer: who reads gives one along, and it is filled in."""

from dataclasses import dataclass, field

OBJECTS_MAX = 4
"""Named of one read; a long one may need many."""


@dataclass(slots=True)
class FetchTimes:
    """Seconds by what was waited for, of the frame that came last, in each round of fetching."""

    waiting: float = 0.0
    """For a request to the store to begin: others were in flight, or it was tried in vain before."""
    store: float = 0.0
    """For the answer to that request."""
    decoding: float = 0.0
    """For what came to be opened: compared with its tag, decrypted and decompressed."""
    requests: int = 0
    """GETs that brought its frames, or were to, whoever wanted them first."""
    tries: int = 0
    """How often one of these was begun for the same frame, at most."""
    objects: list[str] = field(default_factory=list)
    """What was asked for, the first few."""
