"""Mistakes in what opening a store costs, and in who waits for a manifest that lists much."""

from tests.mutants.mutant import mutants

OPENING = [
    *mutants(
        "storage/lsm/manifest/manifest_store.py",
        "tests/storage/lsm/test_engine.py",
        ("opening: a manifest is made in the loop", 'return await self._env.run("codec", seal)', "return seal()"),
    ),
    *mutants(
        "storage/lsm/index/load.py",
        "tests/storage/lsm/test_engine.py",
        (
            "opening: an index is asked for twice",
            "                length = sst.size - sst.index_offset\n",
            "                length = sst.size - sst.index_offset\n                await store.get(name, 0, 64)\n",
        ),
    ),
    *mutants(
        "storage/lsm/index/build.py",
        "tests/storage/lsm/index/test_build.py",
        (
            "opening: each device looks at all rows",
            "{name: column[low:high] for",
            '{name: column[rows["layer"] == layer] for',
        ),
    ),
]
