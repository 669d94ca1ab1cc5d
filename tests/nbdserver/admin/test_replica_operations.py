"""What a round of a replication asks of a store: snapshots that are not needed any more go together."""

from nbdserver.admin.replica_operations import DeleteUnneeded
from storage.fs.store import Store
from tests.storage.fs.snapshots import test_clearing
from tests.storage.fs.snapshots.test_clearing import Clock, names
from tests.support.inside import engine_of


def test_what_is_not_needed_any_more_is_one_commit() -> None:
    async def work(store: Store, env: Clock) -> None:
        for name in ("one", "two", "three", "four"):
            await store.snapshots.create(["a"], name)
        await store.maintenance.flush()
        before = engine_of(store).manifests.number
        with store.snapshots.reading("a", "two", "a test"):
            asked = DeleteUnneeded("a", ["three", "none", "two", "one"])
            assert await asked.perform(store) == {"deleted": ["three", "one"]}
        await store.maintenance.flush()
        assert engine_of(store).manifests.number == before + 1
        assert names(store) == ["two", "four"]
        assert await DeleteUnneeded("none", ["one"]).perform(store) == {"deleted": []}

    test_clearing.live(work)
