"""The list of counters and gauges is complete: what is counted is in it, and what is in it is counted."""

import msgspec

from storage.fs.status import DeviceUsage, StoreStatus
from storage.prices import Costs
from storage.request_budget import Outlook
from storage.stats import BUDGET_STATS, COST_STATS, DEVICE_STATS, ENGINE_STATS, STATS
from tests.storage.lsm.worlds import World

NOT_COUNTED = {"epoch"}
"""Numbers of a status that say which, and not how many."""


def test_every_number_of_a_status_is_in_the_list_and_the_other_way_round() -> None:
    numbers = {
        field.encode_name: field.type
        for field in msgspec.structs.fields(StoreStatus)
        if field.type in (int, float) or getattr(field.type, "__origin__", None) is dict
    }
    names = [stat.name for stat in STATS]
    assert len(set(names)) == len(names)
    assert set(names) == numbers.keys() - NOT_COUNTED
    for stat in STATS:
        assert (numbers[stat.name] is float) == (stat.unit in ("seconds", "ratio")), stat.name
        assert stat.name.endswith("_amplification") == (stat.unit == "ratio"), stat.name
        assert stat.name.endswith("_seconds") == (stat.unit == "seconds"), stat.name
        assert stat.meaning


def test_every_number_of_a_device_is_in_its_list() -> None:
    assert [stat.name for stat in DEVICE_STATS] == [field.encode_name for field in msgspec.structs.fields(DeviceUsage)]


def test_every_cost_is_in_its_list() -> None:
    assert ["currency", *(stat.name for stat in COST_STATS)] == [
        field.encode_name for field in msgspec.structs.fields(Costs)
    ]
    assert not {stat.name for stat in COST_STATS} & {stat.name for stat in STATS}


def test_every_number_of_a_budget_is_in_its_list() -> None:
    assert [stat.name for stat in BUDGET_STATS] == [field.encode_name for field in msgspec.structs.fields(Outlook)]
    assert not {stat.name for stat in BUDGET_STATS} & {stat.name for stat in (*STATS, *COST_STATS)}


async def test_an_engine_gives_all_of_its_numbers() -> None:
    world = World()
    engine, _ = await world.start()
    assert msgspec.structs.asdict(engine.report().numbers).keys() == {stat.name for stat in ENGINE_STATS}
    await world.crash(engine)
