"""A store with many devices: what is asked of one of them does not cost more for each of the others."""

from nbdserver.admin.operations import CreateDevice, Operation, RenameDevice, ResizeDevice, ShowDevice
from nbdserver.admin.snapshot_operations import CreateSnapshot
from storage import Store
from tests.support.counted import counted
from tests.support.inside import engine_of

MIB = 1 << 20
FEW, MANY = 40, 160


async def calls(store: Store, *operations: Operation) -> int:
    """How much all of these do, with the memtable flush behind them."""
    with counted() as found:
        for operation in operations:
            await operation.perform(store)
        await engine_of(store).flush_memtable()
    return found.count


async def fill(store: Store, first: int, end: int) -> None:
    for number in range(first, end):
        await CreateDevice(f"d{number}", MIB).perform(store)
    await engine_of(store).flush_memtable()


async def test_what_is_asked_of_one_device_does_not_look_at_each_of_the_others(store: Store) -> None:
    await fill(store, 0, FEW)
    few = min([await shown(store, f"d{number}") for number in range(3)])
    await fill(store, FEW, MANY)
    many = min([await shown(store, f"d{number}") for number in range(3, 6)])
    assert many < 1.5 * few, f"{many} calls beside {MANY}, {few} beside {FEW}"


async def shown(store: Store, name: str) -> int:
    """How much it takes to show a device of which nothing has changed, and to give another size and name to it. What
    the store does by itself may come in between: of several the least says what it takes.
    """
    await ShowDevice(name).perform(store)
    with counted() as found:
        await ShowDevice(name).perform(store)
        await ResizeDevice(name, 2 * MIB, shrink=False).perform(store)
        await RenameDevice(name, f"{name}-renamed").perform(store)
    return found.count


async def test_many_are_made_and_snapshots_taken_of_all_at_what_each_costs(store: Store) -> None:
    """A flush has one operation for each of them: none of these looks at the others."""
    await fill(store, 0, FEW)
    few = await calls(store, CreateSnapshot([], "first"))
    few_more = await calls(store, *(CreateDevice(f"more{number}", MIB) for number in range(FEW)))
    await fill(store, FEW, MANY - FEW)
    many = await calls(store, CreateSnapshot([], "second"))
    many_more = await calls(store, *(CreateDevice(f"further{number}", MIB) for number in range(MANY)))
    growth = MANY / FEW
    assert many < 1.5 * growth * few, f"{many} calls for {MANY}, {few} for {FEW}"
    assert many_more < 1.5 * growth * few_more
