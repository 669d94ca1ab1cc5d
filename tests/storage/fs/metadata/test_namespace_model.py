"""The tree of names against a dictionary, whatever comes."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from storage.errors import AlreadyExists, Conflict, Corrupt, NotFound
from storage.format.trunks import DropLayer
from storage.fs.metadata.device_plans import (
    plan_create_device,
    plan_delete_device,
    plan_rename_device,
    plan_resize_device,
)
from storage.fs.metadata.file_plans import plan_attributes
from storage.fs.metadata.namespace import Effect, Namespace, ZeroRange
from tests.storage.fs.trees import NOW
from tests.support.examples import examples

PARTS = st.sampled_from(["a", "b", "c"])
NAMES = st.lists(PARTS, min_size=1, max_size=3).map("/".join)
SIZES = st.integers(1, 8).map(lambda count: count * 512)


class AgainstADict(RuleBasedStateMachine):
    """Devices as a dict of name to (number, size): the same outcomes, and a replay gives an equal tree."""

    def __init__(self) -> None:
        super().__init__()
        self.tree = Namespace.empty(NOW)
        self.model: dict[str, tuple[int, int]] = {}
        self.start = self.tree.encode()
        self.records: list[bytes] = []
        self.effects: list[Effect] = []
        self.highest = 0
        self.now = NOW

    def apply(self, record: bytes) -> list[Effect]:
        effects = self.tree.apply(record)
        self.records.append(record)
        self.effects += effects
        return effects

    def blocked(self, name: str) -> bool:
        """Whether a device with this name collides with the names there are."""
        return any(
            name == other or name.startswith(other + "/") or other.startswith(name + "/") for other in self.model
        )

    @rule(name=NAMES, size=SIZES)
    def create(self, name: str, size: int) -> None:
        self.now += 1
        if self.blocked(name):
            with pytest.raises((AlreadyExists, Conflict)):
                plan_create_device(self.tree, name, size, self.now)
            return
        assert self.apply(plan_create_device(self.tree, name, size, self.now)) != []
        number = self.tree.device(name)[1].number
        assert number > self.highest
        self.highest = number
        self.model[name] = (number, size)

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        if name not in self.model:
            with pytest.raises(NotFound):
                plan_delete_device(self.tree, name, self.now)
            return
        layer = self.tree.device(name)[1].layer
        assert self.apply(plan_delete_device(self.tree, name, self.now)) == [DropLayer(layer)]
        del self.model[name]

    @rule(old=NAMES, new=NAMES)
    def rename(self, old: str, new: str) -> None:
        self.now += 1
        if old not in self.model or self.blocked(new):
            with pytest.raises((NotFound, AlreadyExists, Conflict)):
                plan_rename_device(self.tree, old, new, self.now)
            return
        assert self.apply(plan_rename_device(self.tree, old, new, self.now)) == []
        self.model[new] = self.model.pop(old)

    @rule(name=NAMES, size=SIZES, shrink=st.booleans())
    def resize(self, name: str, size: int, shrink: bool) -> None:
        if name not in self.model:
            with pytest.raises(NotFound):
                plan_resize_device(self.tree, name, size, self.now, shrink=shrink)
            return
        number, old = self.model[name]
        if size < old and not shrink:
            with pytest.raises(Conflict):
                plan_resize_device(self.tree, name, size, self.now, shrink=shrink)
            return
        layer = self.tree.device(name)[1].layer
        cut = [ZeroRange(layer, size, old - size)] if size < old else []
        assert self.apply(plan_resize_device(self.tree, name, size, self.now, shrink=shrink)) == cut
        self.model[name] = (number, size)

    @rule(name=NAMES, mode=st.integers(0, 0o777))
    def attributes(self, name: str, mode: int) -> None:
        if name in self.model:
            self.apply(plan_attributes(self.tree, f"/.nbd/{name}", self.now, mode=mode))
            assert self.tree.device(name)[1].mode == mode

    @rule()
    def checkpoint(self) -> None:
        self.tree = Namespace.decode(self.tree.encode())

    @precondition(lambda self: self.records)
    @rule(data=st.data())
    def a_stale_record_is_harmless(self, data: st.DataObject) -> None:
        """A record planned earlier either still fits or changes nothing: it is never applied by half."""
        record = data.draw(st.sampled_from(self.records))
        before = self.tree.encode()
        scratch = Namespace.decode(before)
        try:
            scratch.apply(record)
        except Corrupt:
            assert scratch.encode() == before

    @invariant()
    def equals_the_model(self) -> None:
        self.tree.check()
        seen = {name: (inode.number, self.tree.size(inode)) for name, inode in self.tree.devices()}
        assert seen == self.model
        assert list(seen) == sorted(seen)

    def teardown(self) -> None:
        replayed = Namespace.decode(self.start)
        assert [effect for record in self.records for effect in replayed.apply(record)] == self.effects
        assert replayed.encode() == self.tree.encode()


TestAgainstADict = AgainstADict.TestCase
TestAgainstADict.settings = settings(max_examples=examples(100), stateful_step_count=30, deadline=None)
