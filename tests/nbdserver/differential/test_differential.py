"""The same requests and options, right and wrong, drawn from a seed, to us, nbdkit and qemu-nbd.

Each is answered by the same class of reply, or the difference is on the list with its reason.
"""

import functools
from pathlib import Path

import pytest

from tests.nbdserver.cases import case
from tests.nbdserver.cases.conftest import Servers, servers
from tests.nbdserver.differential import others, talk
from tests.nbdserver.differential.differences import DIFFERENCES, Difference

__all__ = ["servers"]

SEED = 4
REQUESTS = 600
OPTIONS = 150

OTHERS = {"nbdkit": others.nbdkit, "qemu-nbd": others.qemu_nbd}


class Comparison:
    """Gathers differences that are not on the list, and which of the list were met."""

    def __init__(self, server: str) -> None:
        self.unexplained: set[str] = set()
        self.met: set[Difference] = set()
        self._server = server

    def note(self, key: str, ours: str, theirs: str) -> None:
        found = [one for one in DIFFERENCES if one.explains(self._server, key, ours, theirs)]
        self.met.update(found)
        if not found and ours != theirs:
            self.unexplained.add(f"{key}: {theirs}, ours {ours}")


@pytest.mark.integration
@pytest.mark.parametrize("name", OTHERS)
def test_answers_are_of_the_same_class(servers: Servers, work: Path, name: str) -> None:
    ours = functools.partial(servers.connect, unix=True)
    comparison = Comparison(name)
    with OTHERS[name](work) as theirs:
        for start in (case.in_simple(), case.in_structured()):
            for said in {said.key: said for said in talk.requests(SEED, REQUESTS)}.values():
                comparison.note(said.key, talk.classes(ours, start, said), talk.classes(theirs, start, said))
        for options in talk.options(SEED, OPTIONS):
            answers = zip(talk.option_classes(ours, options), talk.option_classes(theirs, options), strict=True)
            for option, (our, their) in zip(options, answers, strict=True):
                comparison.note(option.key, our, their)
                if our != their:
                    # Behind the first difference the two are in different states.
                    break
    assert comparison.unexplained == set()
    assert comparison.met == {one for one in DIFFERENCES if one.server == name}, "the list names what is no more"
