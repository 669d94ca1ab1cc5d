"""Samples say what the server's own counters say, and cost little."""

import asyncio
import json
import ssl
from typing import Any

import aiohttp
import msgspec
import pytest
from cryptography.hazmat.primitives import serialization

from nbdserver.dashboard.curves import Curves
from nbdserver.dashboard.samples import Sampler, about
from nbdserver.dashboard.web import Dashboard
from nbdserver.protocol import wire
from nbdserver.slow_operations import SLOW_OPERATION_SECONDS
from nbdserver.tls import Credentials
from storage import Store
from storage.env import RealEnv
from storage.stats import BUDGET_STATS, COST_STATS, DEVICE_STATS, STATS
from tests.nbdserver.dashboard.conftest import TOKENS, Asker, sampler_of
from tests.support.certificates import Authority, write_folder
from tests.support.running import Running
from tests.support.waiting import until

MIB = 1 << 20
STATUS_ONLY_MOVES = {"uptime_seconds"}


async def counted(sampler: Sampler) -> Any:
    """The first sample in which all is counted: on a machine that is busy that may be a later one."""
    while True:
        sample = await sampler.take()
        if all(sample[name] is not None for name in ("usage_at", "ssts", "snapshots", "reads")):
            return sample


async def test_a_sample_is_the_status_and_the_counters(store: Store, running: Running, sampler: Sampler) -> None:
    await store.create_device("disk", 64 * MIB)
    for block in range(9):
        store.device("disk").write(block << 18, bytes([block + 1]) * 4096)
    await store.maintenance.flush()
    await store.snapshots.create(["disk"], "monday")
    client = await running.client()
    await asyncio.to_thread(client.write, 0, b"x" * 8192)
    sample = await counted(sampler)
    status, clients = msgspec.to_builtins(store.status()), running.server.clients()
    await asyncio.to_thread(client.close)
    for stat in STATS:
        if stat.name not in STATUS_ONLY_MOVES:
            assert sample["store"][stat.name] == status[stat.name], stat.name
    (device,) = sample["devices"]
    assert device["usage"] == msgspec.to_builtins(store.device_usage("disk"))
    assert sum(group[1] for group in sample["ssts"]["value"]) == status["stored_bytes"]
    assert [(one["device"], one["name"]) for one in sample["snapshots"]["value"]] == [("disk", "monday")]
    requests = store.request_stats
    for verb, told in sample["requests"].items():
        assert (told["count"], told["failed"]) == (requests.requests[verb], requests.failed[verb])
        assert told["counts"] == requests.seconds[verb].counts
    assert sample["serving"]["clients"] == clients
    assert clients[0]["requests"] == 1


async def test_slow_operations_are_those_of_the_server(running: Running, sampler: Sampler) -> None:
    """The newest first, behind what is under way."""
    running.disk.durable_at_once = False
    client = await running.client()
    await asyncio.to_thread(client.write, 0, b"x" * 4096)
    client.submit(wire.CMD_FLUSH)
    await until(lambda: bool(running.server.slow_operations()))
    (waits,) = sampler.sample()["slow"]
    assert (waits["operation"], waits["outcome"], waits["client"], waits["number"]) == ("flush", "under way", 1, 0)
    running.disk.commit()
    await asyncio.to_thread(client.receive)
    client.submit(wire.CMD_FLUSH)
    await asyncio.to_thread(client.receive)
    (ended,) = sampler.sample()["slow"]
    assert (ended["outcome"], ended["number"], next(iter(ended["spent"]))) == ("done", 1, "log")
    assert ended["seconds"] >= waits["seconds"] >= SLOW_OPERATION_SECONDS
    await asyncio.to_thread(client.close)


async def test_every_figure_has_its_formula_from_the_one_list() -> None:
    told = about()["stats"]
    assert [one["name"] for one in told["store"]] == [stat.name for stat in (*STATS, *COST_STATS, *BUDGET_STATS)]
    assert [one["name"] for one in told["device"]] == [stat.name for stat in DEVICE_STATS]


async def test_what_takes_long_is_not_counted_each_time(sampler: Sampler, store: Store) -> None:
    first = await counted(sampler)
    await store.create_device("disk", MIB)
    await store.snapshots.create(["disk"], "monday")
    again = await sampler.take()
    assert again["snapshots"] == first["snapshots"]
    assert [device["name"] for device in again["devices"]] == ["disk"], "what is in memory is new each time"
    sampler.expire()
    for _ in range(20):  # each waits for what is being counted, and not at all if nothing is
        later = await sampler.take()
        if later["snapshots"] != first["snapshots"]:
            break
    assert len(later["snapshots"]["value"]) == 1


async def test_samples_come_one_after_the_other(asker: Asker) -> None:
    headers = {"Authorization": f"Bearer {TOKENS.read_only}"}
    async with asker.session.get(asker.url + "/v1/events", headers=headers) as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        assert "Content-Security-Policy" in stream.headers
        seen: list[Any] = []
        for _ in range(2):
            event = await stream.content.readuntil(b"\n\n")
            seen.append(json.loads(event.removeprefix(b"data: ")))
    assert seen[0]["at"] < seen[1]["at"]
    assert seen[0]["store"]["url"] == "memory://"


async def test_a_map_is_given_in_cells(asker: Asker, store: Store) -> None:
    await store.create_device("a/b c", 64 * MIB)
    store.device("a/b c").write(0, b"x" * 4096)
    status, _, found = await asker.ask("GET", "/v1/map/a%2Fb%20c?cells=16", TOKENS.read_only)
    assert status == 200
    assert (len(found["allocated"]), sum(found["allocated"]), found["cell_blocks"]) == (16, 1, 16)
    for query in ("cells=no", "cells=0", "cells=99999", "since=never"):
        assert (await asker.ask("GET", f"/v1/map/a%2Fb%20c?{query}", TOKENS.read_only))[0] == 422
    assert (await asker.ask("GET", "/v1/map/none", TOKENS.read_only))[0] == 422


def trusting(authority: Authority) -> ssl.SSLContext:
    """What a browser is that knows this authority and no other."""
    pem = authority.certificate.public_bytes(serialization.Encoding.PEM).decode()
    return ssl.create_default_context(cadata=pem)


@pytest.mark.parametrize("verify_peer", [False, True])
async def test_under_tls_with_the_certificates_that_were_read_last(
    store: Store, running: Running, work: Any, verify_peer: bool
) -> None:
    """A browser has no certificate, whatever clients of disks must show."""
    folder, authority = work / "pki", Authority()
    write_folder(folder, authority)
    credentials = Credentials(folder, verify_peer=verify_peer, env=RealEnv())
    sampler = sampler_of(store, running.server)
    curves = Curves(running.server, lambda: store.request_stats.requests, RealEnv())
    context = credentials.make_page_context()
    board = Dashboard(lambda: store, running.server, sampler, curves, TOKENS, hosts=[], context=context)
    await board.listen("127.0.0.1", 0)
    assert board.url.startswith("https://")

    async def seen_by(who: Authority) -> int:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting(who))) as session:
            return await Asker(session, board.url.rstrip("/")).status("GET", "/v1/about", TOKENS.full)

    try:
        assert await seen_by(authority) == 200
        before = credentials.expiry()
        assert before["path"] == str(folder / "server-cert.pem")
        assert before["until"] - RealEnv().wall_clock() == pytest.approx(20 * 86400, rel=0.01)
        other = Authority()
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await seen_by(other)
        write_folder(folder, other)
        credentials.reload()
        assert await seen_by(other) == 200
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await seen_by(authority)
    finally:
        await board.stop()
        await sampler.stop()
