"""The tree of names as whoever changes it sees it: devices and snapshots (`device@snapshot`) with a name, a layer and a
size.

It owes the engine's tree nothing: an operator says beforehand what a change is to do, and what the engine then shows
must be exactly that. Only the number of
a new layer is the engine's to choose, and it may be none that this history has seen.
"""

from collections.abc import Container
from dataclasses import dataclass

Devices = dict[str, tuple[int, int]]
"""Name of a device or snapshot to its (layer, size)."""

CLONE_UNDER_WAY = "clone-under-way"
"""What the snapshot is called that a clone of a device makes on its way."""

ON_TRUNKS = ("snapshot", "clone", "rollback", "forget")
"""Verbs that do something to snapshots: they wait for the memtable flush under way."""


@dataclass(frozen=True)
class Change:
    """`verb` is create, fill, resize, rename or delete, or one of `ON_TRUNKS`; `size` is the new one in bytes, `new`
    the new name. What is filled has all that it was made to hold. A snapshot is taken of all devices of `group`, and
    called `new`; what is cloned, forgotten or rolled back to is `name`, a snapshot; with it those of `group` are
    forgotten. A rollback that keeps what it replaces calls it something that begins with `new`.
    """

    verb: str
    name: str
    size: int = 0
    new: str = ""
    group: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.verb} {self.name} {self.new or self.size or ''}".rstrip()


def after(devices: Devices, change: Change, shown: Devices, known: Container[int]) -> Devices:
    """What there must be after a change. `shown` is what the engine says there is, `known` are the layers so far.
    KeyError: it cannot be made.
    """
    result = dict(devices)
    if change.verb == "create":
        layer = shown.get(change.name, (0, 0))[0]
        if layer not in known:
            result[change.name] = (layer, change.size)
    elif change.verb == "fill":
        result[change.name] = devices[change.name]
    elif change.verb == "resize":
        result[change.name] = (result[change.name][0], change.size)
    elif change.verb == "rename":
        for name in [name for name in result if name.partition("@")[0] == change.name]:
            result[change.new + name[len(change.name) :]] = result.pop(name)
    elif change.verb == "snapshot":
        for name in change.group:
            layer, size = result[name]
            result[f"{name}@{change.new}"] = (layer, size)
            _new_layer(result, name, size, shown, known)
    elif change.verb == "clone":
        if change.new in devices:
            raise KeyError(change.new)
        _new_layer(result, change.new, result[change.name][1], shown, known)
    elif change.verb == "rollback":
        device, size = change.name.partition("@")[0], result[change.name][1]
        if change.new:
            kept = next((n for n in shown if n not in result and n.startswith(f"{device}@{change.new}")), "nothing")
            result[kept] = result[device]
        _new_layer(result, device, size, shown, known)
    else:
        for name in (change.name, *change.group):
            del result[name]
    return result


def _new_layer(result: Devices, name: str, size: int, shown: Devices, known: Container[int]) -> None:
    layer = shown.get(name, (0, 0))[0]
    if layer not in known:
        result[name] = (layer, size)


def cut_off(before: Devices, now: Devices) -> dict[int, tuple[int, int]]:
    """Layer to the (offset, length) that became zeros since the device was made smaller."""
    sizes = dict(now.values())
    return {
        layer: (sizes[layer], size - sizes[layer])
        for layer, size in before.values()
        if layer in sizes and sizes[layer] < size
    }
