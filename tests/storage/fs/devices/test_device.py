"""A device as a connection sees it."""

import pytest

from storage.errors import AccessDenied, Invalid
from storage.fs.devices.device import Device
from storage.fs.devices.history import History
from storage.fs.name_tree import NameTree
from storage.lsm.engine import Engine
from storage.lsm.layer import Layer
from tests.storage.lsm.worlds import World, join

SIZE = 1024 * 1024


def make(engine: Engine, layer: Layer, *, read_only: bool) -> Device:
    history = History(engine, NameTree(), layer)
    gate_and_journal = engine.writes.gate, engine.journal
    return Device(
        layer,
        gate=gate_and_journal[0],
        journal=gate_and_journal[1],
        history=history,
        size=SIZE,
        read_only=read_only,
        identity=lambda: "1.0",
    )


async def test_it_is_its_layer_with_a_size() -> None:
    world = World()
    engine, layer = await world.start()
    device = make(engine, layer, read_only=False)
    sequence = device.write(5, b"data")
    assert device.last_sequence == sequence
    assert device.zero(100, 50, allocated=True) == sequence + 1 == device.last_sequence
    cached = device.read_cached(0, 10)
    assert cached is not None
    assert join(cached) == b"\0" * 5 + b"data" + b"\0"
    assert not device.want_durable(device.last_sequence)
    await engine.flush()
    assert device.want_durable(device.last_sequence)
    for length in (0, -1):
        with pytest.raises(Invalid):
            device.zero(0, length, allocated=False)
    await engine.close()


async def test_a_read_only_one_refuses_every_change() -> None:
    world = World()
    engine, layer = await world.start()
    device = make(engine, layer, read_only=True)
    before = engine.writes.sequence
    with pytest.raises(AccessDenied):
        device.write(0, b"x")
    with pytest.raises(AccessDenied):
        device.zero(0, 512, allocated=False)
    assert engine.writes.sequence == before
    assert join(await device.read(0, 100)) == bytes(100)
    await engine.close()
