"""What a command asks of a store at rest in several parts, it asks of one that it opens once."""

import asyncio
import json
import subprocess
import sys
from types import SimpleNamespace
from typing import cast

import pytest

from nbdserver.cli.shared.backend import until_failed
from storage import Store
from tests.support.program import Host, without_waits
from tests.support.stores import StoreUnderTest

pytestmark = pytest.mark.integration

PROGRAM = """
import functools
import sys
import storage
from nbdserver.admin import operations, snapshot_operations
from nbdserver.cli import main

snapshot_operations.DiffSnapshot = functools.partial(snapshot_operations.DiffSnapshot, ranges_max=3)
open_reader = storage.open_reader

async def counted(*args, **how):
    print("opened", file=sys.stderr)
    return await open_reader(*args, **how)

storage.open_reader = counted
sys.argv = ["nbdserver", "snapshot", "diff", "a@one", "a", "--json"]
sys.exit(main())
"""


def test_a_long_list_of_changes(host: Host, local_store: StoreUnderTest) -> None:
    host.store_environment = {"NBDSERVER_STORE": local_store.location}
    host.prepare(local_store.location)
    host.run("serve", "--create", "a=4MiB", "--run", "true")
    host.run("snapshot", "create", "a@one")
    writes = "; ".join(f"h.pwrite(b'x', {at * 65536})" for at in range(20))
    program = f"import nbd; h = nbd.NBD(); h.connect_uri('$uri'); {writes}"
    host.run("serve", "--run", f'/usr/bin/python3 -c "{program}"')
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=host.environment(), capture_output=True, text=True, timeout=60, check=True
    )
    found = json.loads(done.stdout)
    assert [one["offset"] for one in found["ranges"]] == [at * 65536 for at in range(20)]
    assert without_waits(done.stderr) == "opened\n"


async def test_what_is_cut_short_is_undone_before_the_store_is_closed() -> None:
    undone = False

    async def work() -> None:
        nonlocal undone
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(10):
                await asyncio.sleep(0)
            undone = True

    store = SimpleNamespace(failed=asyncio.get_running_loop().create_future())
    command = asyncio.ensure_future(until_failed(cast(Store, store), work()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    command.cancel()
    await asyncio.wait({command})
    assert command.cancelled()
    assert undone
