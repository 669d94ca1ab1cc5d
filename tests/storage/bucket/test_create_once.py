"""Whether an object under a name is ours."""

import pytest

from storage.bucket.create_once import CREATE_TRIES_MAX, Taken, create_once, pauses
from storage.errors import AlreadyExists, Fenced, Unavailable
from tests.simulation.virtual import virtually
from tests.storage.lsm.worlds import StageStore

NAME = "wal/00000000000000000001.sst"


async def gone() -> None:
    raise Fenced("a newer writer was there")


async def nothing() -> None:
    pass


async def test_a_free_name_is_taken() -> None:
    store = StageStore()
    await create_once(store, NAME, b"ours", on_gone=gone)
    assert store.objects == {NAME: b"ours"}
    assert store.count("get") == 0


@pytest.mark.parametrize("data", [b"ours", bytearray(b"ours")])
async def test_our_own_bytes_are_success(data: bytes | bytearray) -> None:
    store = StageStore()
    store.objects[NAME] = b"ours"
    await create_once(store, NAME, data, on_gone=gone)


@pytest.mark.parametrize("other", [b"", b"theirs", b"ours and more", b"our"])
async def test_any_other_bytes_are_not_ours(other: bytes) -> None:
    store = StageStore()
    store.objects[NAME] = other
    with pytest.raises(Taken):
        await create_once(store, NAME, b"ours", on_gone=gone)
    assert store.objects == {NAME: other}


async def test_a_name_that_was_taken_and_is_free_again_is_asked_about_first() -> None:
    """Only a newer writer deletes there. If there is none, the bytes are sent again."""
    store = StageStore()
    store.fail_once("create", NAME, AlreadyExists("it was there"))
    with pytest.raises(Fenced):
        await create_once(store, NAME, b"ours", on_gone=gone)
    assert store.objects == {}
    store.fail_once("create", NAME, AlreadyExists("it was there"))
    await create_once(store, NAME, b"ours", on_gone=nothing)
    assert store.objects == {NAME: b"ours"}


async def test_other_failures_are_the_callers() -> None:
    store = StageStore()
    store.fail_once("create", NAME, Unavailable("no answer"))
    with pytest.raises(Unavailable):
        await create_once(store, NAME, b"ours", on_gone=gone)


@virtually
async def test_a_store_that_contradicts_itself_is_not_asked_for_ever() -> None:
    store = StageStore()

    async def taken(name: str, data: object) -> None:
        store.calls.append(("create", name, 0))
        raise AlreadyExists("it is there")

    store.create = taken  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match=f"{NAME} is there when it is created"):
        await create_once(store, NAME, b"ours", on_gone=nothing)
    assert store.count("create", NAME) == CREATE_TRIES_MAX


def test_pauses_double_up_to_a_bound() -> None:
    assert list(pauses(8)) == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]
