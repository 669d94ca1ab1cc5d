"""What this host could not keep of a store in its state folder: logged when it begins, and known until it is kept.

A host that cannot remember is no reason to stop, since the store is well. But what was to be remembered will be missed
some day, so nobody may be left in the belief that it is there. Owned by the event loop.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from storage.errors import AccessDenied, OutOfSpace

State = Literal["anchor", "attached", "reads", "requests"]

_KEPT_WORDS: dict[State, str] = {
    "anchor": "how far it has seen the store",
    "attached": "who is attached",
    "reads": "when what is stored was last read",
    "requests": "what it asked of the store this month",
}

_log = logging.getLogger("nbdserver")


class Unsaved:
    """What of one store could not be saved, or read again, when that was tried last, with the reasons."""

    def __init__(self) -> None:
        self._reasons: dict[State, str] = {}

    @contextmanager
    def tolerate(self, what: State) -> Iterator[None]:
        """Inside, `what` is saved or loaded: where the state folder does not let that be, this goes on all the same."""
        try:
            yield
        except (OutOfSpace, AccessDenied) as error:
            if what not in self._reasons:
                _log.warning("state_not_kept", extra={"state": what, "error": str(error)})
            self._reasons[what] = str(error)
            return
        if self._reasons.pop(what, None) is not None:
            _log.warning("state_kept", extra={"state": what})

    def sentence(self) -> str | None:
        """All of it with the reason that was met first, for people; None: everything is kept."""
        if not self._reasons:
            return None
        words = ", ".join(_KEPT_WORDS[each] for each in self._reasons)
        return f"this host cannot keep {words}: {next(iter(self._reasons.values()))}"
