"""Every state of a model, breadth first: the first one that breaks a promise comes with the shortest way to it."""

import time
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

State = TypeVar("State", bound=Hashable)


class Violation(Exception):
    """A promise is broken in a state, or by a step."""


class Model(Protocol[State]):
    """What can be explored."""

    def initial(self) -> State: ...

    def steps(self, state: State) -> list[tuple[str, State | Violation]]:
        """All (label, next state); a step that breaks a promise gives (label, Violation)."""

    def check(self, state: State) -> None:
        """Raises Violation if the state breaks a promise."""


@dataclass(slots=True)
class Verdict:
    """What was found. `complete`: every state was seen; else a limit or a violation ended it."""

    violation: Violation | None
    complete: bool
    states: int
    trace: list[str] = field(default_factory=list)


def explore(model: Model[State], *, seconds: float) -> Verdict:
    """Look at states until all were seen, one is bad, or the time is up."""
    end = time.monotonic() + seconds
    start = model.initial()
    seen: dict[State, tuple[State | None, str]] = {start: (None, "initial")}

    def trace(state: State | None, *last: str) -> list[str]:
        path = list(last)
        while state is not None and state != start:
            state, label = seen[state]
            path.append(label)
        return path[::-1]

    level = [start]
    while level:
        following: list[State] = []
        for state in level:
            try:
                model.check(state)
            except Violation as violation:
                return Verdict(violation, False, len(seen), trace(state))
            for label, new in model.steps(state):
                if isinstance(new, Violation):
                    return Verdict(new, False, len(seen), trace(state, label))
                if new not in seen:
                    seen[new] = (state, label)
                    following.append(new)
        if time.monotonic() > end:
            return Verdict(None, False, len(seen))
        level = following
    return Verdict(None, True, len(seen))
