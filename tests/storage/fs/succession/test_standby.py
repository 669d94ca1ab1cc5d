"""Signs and who looks at them: whom a standby leaves alone, and whom it takes for ended."""

import asyncio
from collections.abc import Iterator

import pytest

from storage.check.anatomy import anatomy
from storage.crypto.data_key import DataKey
from storage.errors import Fenced, KeyChanged, Unavailable
from storage.format.names import MANIFESTS, WRITERS, attached_name, sign_name, wal_name
from storage.format.sign import Word
from storage.fs.succession.evidence import OUTAGE_SECONDS
from storage.fs.succession.signs_of_life import LEASE_SECONDS_MIN
from storage.fs.succession.stored_attachments import StoredAttachments
from storage.secret import Secret
from tests.storage.fs.succession.pair import World, play

SOON = 5.0
"""From the end of a writer to the turn of who stands by."""


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.end()


def test_a_writer_that_lives_is_left_alone_and_one_that_ended_is_not(world: World) -> None:
    async def scene() -> None:
        await world.begin()
        turn = world.wait()
        await world.nobody_comes(turn, 600)
        assert world.standby.status().patience_seconds == LEASE_SECONDS_MIN
        world.writer.kill()
        began = world.loop.time()
        assert (await turn).why == "silent"
        assert LEASE_SECONDS_MIN - 1.0 <= world.loop.time() - began < SOON
        assert turn.result().tag is not None

    play(world, scene())


def test_one_that_has_another_data_key_is_left_alone_and_said(world: World) -> None:
    """The key was rotated, and the writer started again. Who stands by with the older key can read nothing of it."""

    async def scene() -> None:
        await world.begin()
        turn = world.wait()
        await world.nobody_comes(turn, 5)
        world.manifests = None
        world.key = DataKey(world.key.store_id, Secret(bytes(range(32))), 2, (world.key,))
        await world.commit(epoch=2, closed=False)
        with pytest.raises(KeyChanged, match="changed since it was started; start it again"):
            await turn

    play(world, scene())


async def go_on(world: World, commits: int) -> None:
    """The writer commits, and deletes all manifests but its last and that of its take-over."""
    for _ in range(commits):
        await world.commit()
        names = [info.name for info in await world.store.list(MANIFESTS)]
        await world.store.delete(names[1:-1])


@pytest.mark.parametrize("signs", [True, False])
def test_a_writer_that_has_gone_on_for_long(world: World, signs: bool) -> None:
    """What was its newest manifest is long gone: who stands by knows the one that counts, and loses no lease by it."""

    async def scene() -> None:
        await world.begin(signs=signs)
        turn = world.wait()
        await world.nobody_comes(turn, 5)
        world.other.stalled = not signs  # it looks at nothing meanwhile
        await go_on(world, 40)
        world.loop.resume(world.other)
        await world.nobody_comes(turn, 5)
        began = world.loop.time()
        if signs:
            world.writer.kill()
            tag = (await turn).tag
            assert world.loop.time() - began < SOON
            assert tag == (await world.newest()).tag
        else:
            await world.commit(closed=True)
            assert (await turn).why == "closed"

    play(world, scene())


def test_whose_turn_came_to_nothing_watches_anew(world: World) -> None:
    """The store was away when it was to be opened: what was seen before that is no evidence any more."""

    async def scene() -> None:
        await world.begin()
        turn = world.wait()
        await world.nobody_comes(turn, 5)
        world.writer.stalled, world.manifests = True, None
        assert (await turn).why == "silent"
        again = world.wait()
        await world.nobody_comes(again, LEASE_SECONDS_MIN - 1.2)
        assert (await again).why == "silent"

    play(world, scene())


def test_a_damaged_sign_is_none(world: World) -> None:
    """Somebody wrote over it: it tells nothing of silence, and keeps nobody from a store that was closed."""

    async def scene() -> None:
        await world.begin()
        turn = world.wait()
        await world.nobody_comes(turn, 5)
        await world.signs.stop()
        await world.store.put(sign_name(1), b"whatever")
        await world.nobody_comes(turn, 120)
        assert world.standby.status().reason == ""
        await world.commit(closed=True)
        assert (await turn).why == "closed"

    play(world, scene())


def test_one_that_comes_back_while_the_other_reads_is_left_alone(world: World) -> None:
    """To read all that a store holds may take minutes, in which nobody watches."""

    async def scene() -> None:
        await world.begin()
        turn = world.wait()
        await world.nobody_comes(turn, 5)
        world.writer.stalled, world.manifests = True, None
        assert (await turn).why == "silent"
        await world.loop.spawn(world.other, world.standby.still_due())
        world.lines["b"].away = True
        with pytest.raises(Unavailable, match="did not say whether its writer lives"):
            await world.loop.spawn(world.other, world.standby.still_due())
        world.lines["b"].away = False
        world.loop.resume(world.writer)
        await asyncio.sleep(2)
        with pytest.raises(Fenced, match="has given a sign of life"):
            await world.loop.spawn(world.other, world.standby.still_due())

    play(world, scene())


def test_one_whose_log_grows_while_the_other_reads_is_left_alone(world: World) -> None:
    """Its signs may not come through, and its writes do."""

    async def scene() -> None:
        await world.begin()
        turn = world.wait()
        await world.nobody_comes(turn, 5)
        world.lines["a"].away = True
        assert (await turn).why == "silent"
        await world.loop.spawn(world.other, world.standby.still_due())
        await world.store.create(wal_name(1), b"whatever")
        with pytest.raises(Fenced, match="has given a sign of life"):
            await world.loop.spawn(world.other, world.standby.still_due())

    play(world, scene())


def test_one_that_stands_still_shorter_than_its_lease_is_left_alone(world: World) -> None:
    async def scene() -> None:
        await world.begin()
        turn = world.wait()
        for _ in range(20):
            await world.nobody_comes(turn, 7)
            world.writer.stalled = True
            await world.nobody_comes(turn, LEASE_SECONDS_MIN - 1.2)
            world.loop.resume(world.writer)
        world.writer.stalled, world.manifests = True, None
        assert (await turn).why == "silent"

    play(world, scene())


def test_one_whose_requests_hang_for_a_moment_is_left_alone(world: World) -> None:
    """What is on its way then is not answered for long; the next sign does not wait for it."""

    async def scene() -> None:
        await world.begin()
        turn = world.wait()
        await world.nobody_comes(turn, 7)
        world.lines["a"].seconds = 1000
        await world.nobody_comes(turn, 1.5)
        world.lines["a"].seconds = 0.02
        await world.nobody_comes(turn, 100)

    play(world, scene())


def test_one_on_a_line_that_slows_down_asks_for_more_patience(world: World) -> None:
    async def scene() -> None:
        await world.begin()
        turn = world.wait()
        for seconds in (0.5, 1.2, 1.9):
            world.lines["a"].seconds = seconds
            await world.nobody_comes(turn, 150)
        wanted = world.standby.status().patience_seconds
        assert wanted is not None
        assert wanted > LEASE_SECONDS_MIN
        world.lines["a"].seconds = 0.02
        await world.nobody_comes(turn, 150)
        assert world.standby.status().patience_seconds == LEASE_SECONDS_MIN

    play(world, scene())


@pytest.mark.parametrize("hosts", ["ab", "b"])
def test_a_store_that_is_away_is_no_evidence(world: World, hosts: str) -> None:
    """Also if the writer has its line back later than who stands by."""

    async def scene() -> None:
        await world.begin()
        turn = world.wait()
        for seconds in (1, 5, 60):
            await world.nobody_comes(turn, 20)
            for host in hosts:
                world.lines[host].away = True
            await world.nobody_comes(turn, seconds)
            assert world.standby.status().reason == "no line"
            world.lines["b"].away = False
            await world.nobody_comes(turn, OUTAGE_SECONDS)
            world.lines["a"].away = False
        await world.nobody_comes(turn, 20)
        assert world.standby.status().reason == ""

    play(world, scene())


def test_who_was_stopped_himself_has_not_watched(world: World) -> None:
    async def scene() -> None:
        await world.begin()
        turn = world.wait()
        for _ in range(20):
            await world.nobody_comes(turn, 5)
            world.other.stalled = True
            world.writer.stalled = True
            await asyncio.sleep(60)
            world.loop.resume(world.other)
            await world.nobody_comes(turn, 1.5)
            world.loop.resume(world.writer)

    play(world, scene())


def test_a_log_that_grows_is_a_sign_too(world: World) -> None:
    async def scene() -> None:
        await world.begin()
        turn = world.wait()
        await asyncio.sleep(3)
        world.lines["a"].away = True
        for number in range(30):
            await world.store.create(wal_name(number + 1), b"whatever")
            await world.nobody_comes(turn, 1.5)
        assert (await turn).why == "silent"

    play(world, scene())


def test_one_that_gives_no_signs_is_never_taken_for_ended(world: World) -> None:
    """Nor is one that has taken over from one that gave them."""

    async def scene() -> None:
        await world.begin()
        turn = world.wait()
        await world.nobody_comes(turn, 5)
        world.writer.kill()
        await world.begin(signs=False)
        await world.nobody_comes(turn, 600)
        assert world.standby.status().basis == "nothing"
        await world.commit(closed=True)
        assert (await turn).why == "closed"

    play(world, scene())


@pytest.mark.parametrize(("word", "least", "most"), [(Word.HANDS_OVER, 0.0, 0.3), (Word.COMES_BACK, 29.0, 32.0)])
def test_the_last_word(world: World, word: Word, least: float, most: float) -> None:
    async def scene() -> None:
        await world.begin()
        turn = world.wait()
        await world.nobody_comes(turn, 5)
        await world.loop.spawn(world.writer, world.signs.say(word))
        said = anatomy(sign_name(1), await world.store.get(sign_name(1)), world.key, records=False)
        assert said["word"] == word.name.lower(), "it has landed when whoever says it goes on"
        await world.nobody_comes(turn, 60)
        await world.commit(closed=True)
        await world.signs.stop()
        began = world.loop.time()
        found = await turn
        assert (found.why, found.tag) == ("closed", None)
        assert least <= world.loop.time() - began <= most

    play(world, scene())


def test_what_they_say_can_be_looked_at(world: World) -> None:
    """As by `debug object`."""

    async def scene() -> None:
        await world.begin()
        await asyncio.sleep(3)
        name = sign_name(1)
        found = anatomy(name, await world.store.get(name), world.key, records=False)
        assert (found["kind"], found["epoch"], found["word"], found["manifest"]) == ("sign", 1, "serves", 1)
        await StoredAttachments(world.patient("a"), world.key, world.env).keep(1, b'{"attached": []}')
        name = attached_name(1, 1)
        found = anatomy(name, await world.store.get(name), world.key, records=False)
        assert found["attached"] == {"attached": []}

    play(world, scene())


def test_the_sign_of_who_took_over_meanwhile_stays(world: World) -> None:
    """A writer that stood still deletes it no more: its writer may have died, and by it a standby takes over."""

    async def scene() -> None:
        await world.begin()
        world.writer.stalled, world.manifests = True, None
        await world.begin(signs=False)
        await world.store.put(sign_name(2), b"of who has followed")
        world.loop.resume(world.writer)
        await asyncio.sleep(3)
        assert sign_name(2) in {info.name for info in await world.store.list(WRITERS)}

    play(world, scene())


def test_signs_of_other_writers_are_deleted(world: World) -> None:
    """Also one of a later epoch, when the store was set back: who has that epoch next may give none."""

    async def scene() -> None:
        await world.store.put("writer/0000000009.sign", b"of a store that was set back")
        others = [attached_name(1, 1), "writer/Thumbs.db", "writer/0000000001.sign.partial"]
        for name in others:
            await world.store.put(name, b"no sign: who is attached is asked for by whoever opens the store")
        await world.begin()
        await asyncio.sleep(3)
        await world.signs.stop()
        await world.begin()
        await asyncio.sleep(3)
        left = {info.name for info in await world.store.list(WRITERS)}
        assert left == {"writer/0000000002.sign", *others}

    play(world, scene())
