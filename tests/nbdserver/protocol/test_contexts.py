"""Metadata contexts: which are listed and selected, and that each answers for itself."""

import pytest

from nbdserver.protocol import wire
from nbdserver.protocol.agreement import CONTEXTS_MAX, INCARNATION, MetaContext
from nbdserver.protocol.handshake import Handshake
from nbdserver.protocol.option_data import QUERIES_MAX
from nbdserver.protocol.wire import ProtocolError
from tests.nbdserver.protocol.test_handshake import Offer, hear
from tests.support import messages as m

ALLOCATION = "base:allocation"
CHANGED = ("x-nbdserver:changed:one", "x-nbdserver:changed:two")
DIRTY = ("qemu:dirty-bitmap:one", "qemu:dirty-bitmap:two")
ALL = (ALLOCATION, *CHANGED, *DIRTY)
HELLO = m.FIXED_ZEROLESS_FLAGS + m.option(m.STRUCTURED_REPLY)


class Catalogue:
    def __init__(self, *snapshots: str) -> None:
        self.snapshots = snapshots

    def names(self) -> tuple[str, ...]:
        return ("disk", "other")

    def find(self, name: str) -> Offer | None:
        return Offer(name, known=self.snapshots) if name in self.names() else None

    def refusal(self, export: Offer) -> str | None:
        return None


def answered(handshake: Handshake[Offer]) -> list[tuple[int, int, bytes]]:
    """(option, kind, data) of the replies; of the first that are taken, which follow the greeting."""
    return replies(b"".join(handshake.take_output())[18:])


def replies(output: bytes) -> list[tuple[int, int, bytes]]:
    """(option, kind, data) of each."""
    found = []
    while output:
        option, kind, length = (int.from_bytes(output[at : at + 4], "big") for at in (8, 12, 16))
        found.append((option, kind, output[20 : 20 + length]))
        output = output[20 + length :]
    return found


def contexts(handshake: Handshake[Offer], option: int) -> list[tuple[int, str]]:
    """(number, name) of the contexts that it answers with."""
    return [
        (int.from_bytes(data[:4], "big"), data[4:].decode())
        for answered_option, kind, data in answered(handshake)
        if (answered_option, kind) == (option, m.REP_META_CONTEXT)
    ]


@pytest.mark.parametrize(
    ("queries", "listed"),
    [
        ((), ALL),
        (("base:",), (ALLOCATION,)),
        (("x-nbdserver:",), CHANGED),
        (("x-nbdserver:changed:",), CHANGED),
        (("qemu:",), DIRTY),
        (("qemu:dirty-bitmap:",), DIRTY),
        (("qemu:dirty-bitmap:two", "base:"), (ALLOCATION, DIRTY[1])),
        (("qemu:allocation-depth", "qemu:dirty-bitmap", "x-nbdserver:changed:three", "other:"), ()),
    ],
)
def test_what_is_listed(queries: tuple[str, ...], listed: tuple[str, ...]) -> None:
    handshake = Handshake(Catalogue("one", "two"))
    hear(handshake, HELLO + m.option(m.LIST_META_CONTEXT, m.context_data("disk", *queries)))
    assert contexts(handshake, m.LIST_META_CONTEXT) == [(0, name) for name in listed]


@pytest.mark.parametrize(
    ("queries", "selected"),
    [
        ((ALLOCATION,), (ALLOCATION,)),
        ((DIRTY[1],), (DIRTY[1],)),
        ((DIRTY[0], ALLOCATION, CHANGED[0], DIRTY[0]), (ALLOCATION, CHANGED[0], DIRTY[0])),
        (("qemu:dirty-bitmap:", "base:", "x-nbdserver:"), ()),
        (("qemu:dirty-bitmap:three",), ()),
    ],
)
def test_what_is_selected(queries: tuple[str, ...], selected: tuple[str, ...]) -> None:
    handshake = Handshake(Catalogue("one", "two"))
    hear(handshake, HELLO + m.set_contexts("disk", *queries) + m.go("disk"))
    assert contexts(handshake, m.SET_META_CONTEXT) == list(enumerate(selected, 1))
    assert handshake.agreement is not None
    assert [(each.number, each.name) for each in handshake.agreement.contexts] == list(enumerate(selected, 1))
    assert [each.since for each in handshake.agreement.contexts] == [
        "" if name == ALLOCATION else name.rpartition(":")[2] for name in selected
    ]


@pytest.mark.parametrize("again", [m.set_contexts("disk"), m.set_contexts("disk", *["base:x"] * 3)])
def test_the_last_selection_counts(again: bytes) -> None:
    handshake = Handshake(Catalogue("one"))
    hear(handshake, HELLO + m.set_contexts("disk", DIRTY[0]) + again + m.go("disk"))
    assert handshake.agreement is not None
    assert handshake.agreement.contexts == ()


def test_a_selection_is_of_one_export() -> None:
    handshake = Handshake(Catalogue("one"))
    hear(handshake, HELLO + m.set_contexts("disk", DIRTY[0]) + m.go("other"))
    assert handshake.agreement is not None
    assert handshake.agreement.contexts == ()


def test_too_many_are_refused() -> None:
    snapshots = [f"s{number}" for number in range(CONTEXTS_MAX + 1)]
    handshake = Handshake(Catalogue(*snapshots))
    names = [f"qemu:dirty-bitmap:{name}" for name in snapshots]
    hear(handshake, HELLO + m.set_contexts("disk", *names) + m.set_contexts("disk", *names[1:]) + m.go("disk"))
    kinds = [kind for option, kind, _ in answered(handshake) if option == m.SET_META_CONTEXT]
    assert kinds == [wire.REP_ERR_TOO_BIG, *[m.REP_META_CONTEXT] * CONTEXTS_MAX, m.REP_ACK]
    assert handshake.agreement is not None
    assert handshake.agreement.contexts[0] == MetaContext(names[1], "s1", 1)


@pytest.mark.parametrize("option", [m.SET_META_CONTEXT, m.LIST_META_CONTEXT])
def test_more_queries_than_anybody_needs_are_refused_and_the_client_goes_on(option: int) -> None:
    """Seen: 1,337 of them, each compared with every context and every term of the store, took 8 ms from all others."""
    handshake = Handshake(Catalogue("one"))
    asked = [f"x-no:{number}" for number in range(QUERIES_MAX - 1)]
    many = m.option(option, m.context_data("disk", *asked, ALLOCATION, ALLOCATION))
    hear(handshake, HELLO + many + m.option(option, m.context_data("disk", *asked, ALLOCATION)) + m.go("disk"))
    kinds = [kind for answered_option, kind, _ in answered(handshake) if answered_option == option]
    assert kinds == [wire.REP_ERR_TOO_BIG, m.REP_META_CONTEXT, m.REP_ACK]
    assert handshake.agreement is not None


@pytest.mark.parametrize(
    ("option", "queries", "asked"),
    [
        (m.SET_META_CONTEXT, [ALLOCATION], 0),
        (m.LIST_META_CONTEXT, [INCARNATION], 0),
        (m.LIST_META_CONTEXT, [], 1),
        (m.LIST_META_CONTEXT, ["x-nbdserver:"], 1),
        (m.LIST_META_CONTEXT, ["qemu:"], 1),
        (m.SET_META_CONTEXT, [CHANGED[0], DIRTY[0]], 1),
    ],
)
def test_snapshots_are_looked_for_only_where_they_may_be_meant(
    monkeypatch: pytest.MonkeyPatch, option: int, queries: list[str], asked: int
) -> None:
    """Of a store with many disks and snapshots that took a tenth of a second, for each client that connected."""
    looked: list[str] = []

    def snapshots(offer: Offer) -> tuple[str, ...]:
        looked.append(offer.name)
        return offer.known

    monkeypatch.setattr(Offer, "snapshots", snapshots)
    handshake = Handshake(Catalogue("one"))
    hear(handshake, HELLO + m.option(option, m.context_data("disk", *queries)))
    assert len(looked) == asked
    hear(handshake, m.go("disk"))
    assert handshake.agreement is not None
    assert len(looked) == asked * (2 if option == m.SET_META_CONTEXT else 1)


@pytest.mark.parametrize("option", [m.INFO, m.GO])
def test_more_information_requests_than_anybody_needs_are_refused(option: int) -> None:
    """Seen: 32,765 of them, each decoded for itself, took 20 ms from all others."""
    handshake = Handshake(Catalogue())
    for count in (65, 64):
        hear(handshake, (HELLO if count == 65 else b"") + m.option(option, m.info_data("disk", *range(count))))
    kinds = [kind for answered_option, kind, _ in answered(handshake) if answered_option == option]
    assert (kinds[0], kinds[-1]) == (wire.REP_ERR_TOO_BIG, m.REP_ACK)


class Lasting(Catalogue):
    """A store that was opened twice, and lost nothing in between."""

    def find(self, name: str) -> Offer | None:
        return Offer(name, lineage=("before", "now"))


NOW, BEFORE, LOST = (INCARNATION + each for each in ("now", "before", "lost"))


@pytest.mark.parametrize(
    ("queries", "listed"),
    [
        ((), [ALLOCATION, NOW]),
        ((INCARNATION,), [NOW]),
        (("x-nbdserver:",), [NOW]),
        ((BEFORE,), [BEFORE]),
        ((INCARNATION, BEFORE), [NOW, BEFORE]),
        ((INCARNATION, LOST), [NOW]),
        ((LOST,), []),
    ],
)
def test_incarnations_since_which_nothing_was_lost(queries: tuple[str, ...], listed: list[str]) -> None:
    handshake = Handshake(Lasting())
    hear(handshake, HELLO + m.option(m.LIST_META_CONTEXT, m.context_data("disk", *queries)))
    assert contexts(handshake, m.LIST_META_CONTEXT) == [(0, name) for name in listed]


def test_an_incarnation_is_selected_by_its_name() -> None:
    handshake = Handshake(Lasting())
    said = m.option(m.SET_META_CONTEXT, m.context_data("disk", LOST, BEFORE, INCARNATION, ALLOCATION))
    hear(handshake, HELLO + said)
    assert contexts(handshake, m.SET_META_CONTEXT) == [(1, ALLOCATION), (2, BEFORE)]


class GoingOn(Catalogue):
    """A name that means another disk, or another moment of it, when `then` is added: that one has these contexts."""

    def __init__(self, *, then: Offer) -> None:
        super().__init__("one")
        self._now = Offer("disk", lineage=("before", "now"), known=("one",))
        self._then = then

    def go_on(self) -> None:
        self._now = self._then

    def find(self, name: str) -> Offer | None:
        return self._now


@pytest.mark.parametrize(
    ("selected", "then", "refused"),
    [
        (NOW, Offer("disk", lineage=("later",)), True),
        (BEFORE, Offer("disk", lineage=("now",)), True),
        (CHANGED[0], Offer("disk"), True),
        (NOW, Offer("disk", lineage=("now", "later")), False),
        (ALLOCATION, Offer("disk", lineage=("later",)), False),
    ],
)
def test_what_was_selected_holds_for_what_is_attached(selected: str, then: Offer, refused: bool) -> None:
    """A client that was told that its disk is unbroken must not get another one with the next option."""
    catalogue = GoingOn(then=then)
    handshake = Handshake(catalogue)
    hear(handshake, HELLO + m.set_contexts("disk", selected))
    assert contexts(handshake, m.SET_META_CONTEXT) == [(1, selected)]
    catalogue.go_on()
    hear(handshake, m.go("disk"))
    assert (handshake.agreement is None) == refused
    if refused:
        kind, sentence = next(
            (kind, data) for option, kind, data in replies(b"".join(handshake.take_output())) if option == m.GO
        )
        assert kind == wire.REP_ERR_INVALID
        assert b"select again" in sentence
        with pytest.raises(ProtocolError, match="select again"):
            hear(handshake, m.option(m.EXPORT_NAME, b"disk"))


def test_who_selects_again_attaches_what_there_is_then() -> None:
    catalogue = GoingOn(then=Offer("disk", lineage=("later",)))
    handshake = Handshake(catalogue)
    hear(handshake, HELLO + m.set_contexts("disk", NOW))
    catalogue.go_on()
    hear(handshake, m.go("disk") + m.set_contexts("disk", NOW, ALLOCATION) + m.go("disk"))
    assert handshake.agreement is not None
    assert [each.name for each in handshake.agreement.contexts] == [ALLOCATION]
