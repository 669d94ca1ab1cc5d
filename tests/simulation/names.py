"""The tree of names as whoever changes it sees it: devices with a name, a layer and a size.

It owes the engine's tree nothing: an operator says beforehand what a change is to do, and what the engine then shows
must be exactly that. Only the number of
a new layer is the engine's to choose, and it may be none that this history has seen.
"""

from collections.abc import Container
from dataclasses import dataclass

Devices = dict[str, tuple[int, int]]
"""Name of a device to its (layer, size)."""


@dataclass(frozen=True)
class Change:
    """`verb` is create, resize, rename or delete; `size` is the new one in bytes, `new` the new name."""

    verb: str
    name: str
    size: int = 0
    new: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.name} {self.new or self.size or ''}".rstrip()


def after(devices: Devices, change: Change, shown: Devices, known: Container[int]) -> Devices:
    """What there must be after a change. `shown` is what the engine says there is, `known` are the layers so far."""
    result = dict(devices)
    if change.verb == "create":
        layer = shown.get(change.name, (0, 0))[0]
        if layer not in known:
            result[change.name] = (layer, change.size)
    elif change.verb == "resize":
        result[change.name] = (result[change.name][0], change.size)
    elif change.verb == "rename":
        result[change.new] = result.pop(change.name)
    else:
        del result[change.name]
    return result


def cut_off(before: Devices, now: Devices) -> dict[int, tuple[int, int]]:
    """Layer to the (offset, length) that became zeros since the device was made smaller."""
    sizes = dict(now.values())
    return {
        layer: (sizes[layer], size - sizes[layer])
        for layer, size in before.values()
        if layer in sizes and sizes[layer] < size
    }
