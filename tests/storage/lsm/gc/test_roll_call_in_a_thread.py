"""A sweep compares what is listed with what is named in a thread: there may be hundreds of thousands of objects."""

import threading
from collections.abc import Sequence

import pytest

from storage.bucket.named_ssts import RollCall
from storage.objects.base import ObjectInfo
from tests.storage.lsm.worlds import World


async def test_the_event_loop_does_not_compare_the_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(threads=True)
    engine, layer = await world.start()
    layer.write(0, b"data")
    await engine.flush_memtable()
    threads: list[threading.Thread] = []
    note = RollCall.note

    def noted(self: RollCall, infos: Sequence[ObjectInfo]) -> None:
        threads.append(threading.current_thread())
        note(self, infos)

    monkeypatch.setattr(RollCall, "note", noted)
    await engine.sweeper.look()
    assert engine.sweeper.lost == []
    assert threads
    assert threading.current_thread() not in threads
    await engine.close()
