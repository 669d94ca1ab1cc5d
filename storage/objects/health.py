"""The health of a store, whether it answers: as a whole, and single requests that fail for ever while others do not.

The store as a whole fails from the first request that fails until the next that is answered, whatever it asked. A
request that goes on failing while others are answered is a matter of its own object: it is listed by itself, and does
not make the store look down, nor do the answers of others make it look well.
"""

import logging
from dataclasses import dataclass, replace

from storage.env import Env
from storage.errors import StorageError

SILENT_SECONDS = 2.0
"""A store that is being opened and says nothing for so long is said not to answer."""

HUNG_SECONDS = 10.0
"""A folder that serves and says nothing for so long hangs. A busy disk takes seconds, and is waited for in silence."""

ALONE_SECONDS = 10.0
"""What fails for so long while others are answered has more than bad luck."""

_log = logging.getLogger("nbdserver")


@dataclass(frozen=True, slots=True)
class Failing:
    """What does not do as it is asked: since when (`Env.monotonic`), what was asked of which object, and why not."""

    since: float
    request: str
    name: str
    reason: str


class Health:
    """What fails now; one for all who share a store. The log is told when that changes."""

    def __init__(self, url: str, env: Env) -> None:
        self.failing: Failing | None = None
        """The store as a whole; None while requests are answered."""
        self._url = url
        self._env = env
        self._requests: dict[object, Failing] = {}
        self._told: set[object] = set()
        self._answered_at = env.monotonic()

    def failing_alone(self) -> list[Failing]:
        """The requests that have failed for long while others are answered, oldest first."""
        latest = self._env.monotonic() - ALONE_SECONDS
        alone = (each for each in self._requests.values() if self._is_alone(each) and each.since <= latest)
        return sorted(alone, key=lambda each: each.since)

    def failed(self, request: object, verb: str, name: str, error: StorageError) -> None:
        """A request had no answer, or was refused in a way that passes or that somebody can mend."""
        now = self._env.monotonic()
        before = self._requests.get(request)
        this = Failing(now if before is None else before.since, verb, name, str(error))
        self._requests[request] = this
        if self.failing is not None:
            self.failing = replace(self.failing, reason=this.reason)
        elif not self._is_alone(this):
            self._fail(this)
        elif request not in self._told:
            self._told.add(request)
            self._say("object_failing", request=verb, object=name, error=this.reason)

    def silent(self, verb: str, name: str, since: float, seconds: float = SILENT_SECONDS) -> None:
        """A request that waits has had no answer, and nobody else one since `since`, which is `seconds` ago."""
        if self.failing is None and self._answered_at <= since:
            self._fail(Failing(since, verb, name, f"{self._url} has not answered for {seconds:g} s"))

    def quiet_since(self, asked: float) -> float:
        """Since when the store says nothing to one who asked at `asked`: nobody has had an answer behind that."""
        return max(asked, self._answered_at)

    def answered(self, request: object) -> None:
        """A request was answered."""
        self._answered_at = self._env.monotonic()
        if request in self._told:
            self._say("object_recovered", request=self._requests[request].request, object=self._requests[request].name)
        self.ended(request)
        if self.failing is not None:
            self.failing = None
            self._say("store_recovered")

    def ended(self, request: object) -> None:
        """Whoever asked again for this request has given up: it counts no longer as failing."""
        self._requests.pop(request, None)
        self._told.discard(request)

    def _is_alone(self, failing: Failing) -> bool:
        return failing.since < self._answered_at

    def _fail(self, failing: Failing) -> None:
        self.failing = failing
        self._say("store_failing", request=failing.request, object=failing.name, error=failing.reason)

    def _say(self, event: str, **facts: str) -> None:
        _log.warning(event, extra={"url": self._url, **facts})
