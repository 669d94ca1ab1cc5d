"""The copy of the keys: it stands in for them where they are damaged or gone, an old one never does, and each of the
two is made anew from the other.
"""

import pytest

from storage.crypto.keys import create, keys_name, load, newest_number, older, vouched_number
from storage.crypto.keys_change import OldKeysLeft
from storage.crypto.mend_keys import mend_keys
from storage.crypto.password_slots import add_password, change_password
from storage.crypto.spare_keys import spare_keys_name
from storage.env import RealEnv
from storage.errors import AccessDenied, Conflict, Corrupt, StorageError, Unavailable, Unsupported, WrongPassword
from storage.objects.memory import MemoryStore
from tests.storage.crypto.key_samples import CHEAP, FIRST, NEW, OLD, OTHER, names, with_checksum
from tests.storage.crypto.trapped import Interrupted, Trapped, die

COPY = spare_keys_name(1)
FLOOR = CHEAP.memory_kib_min


def damages(content: bytes) -> dict[str, bytes]:
    flipped = bytearray(content)
    flipped[80] ^= 4
    altered = bytearray(content)
    altered[50] ^= 1  # the salt of the first slot
    sealed = bytearray(content)
    sealed[-33] ^= 1  # the last byte before the checksum, of the seal over all
    version = content[:8] + b"\x02" + content[9:]
    made = {
        "sealed by another": with_checksum(sealed[:-32]),
        "flipped": bytes(flipped),
        "cut": content[:-1],
        "empty": b"",
        "replaced": b"<html>" * 99,
        "huge": bytes(9999),
    }
    return made | {"another version": version, "altered": with_checksum(altered[:-32])}


async def test_the_keys_have_a_copy_from_the_beginning(store: MemoryStore, env: RealEnv) -> None:
    await create(store, OLD, env, CHEAP)
    assert await store.get(COPY) == await store.get(FIRST)
    await change_password(store, OLD, NEW, env, CHEAP)
    assert [info.name for info in await store.list("")] == [keys_name(2), spare_keys_name(2)]
    assert await store.get(keys_name(2)) == await store.get(spare_keys_name(2))


async def test_whatever_becomes_of_the_keys_their_copy_opens_the_store_and_it_is_mended(
    store: MemoryStore, env: RealEnv
) -> None:
    made = await create(store, OLD, env, CHEAP)
    sound = await store.get(FIRST)
    for what, content in damages(sound).items():
        await store.put(FIRST, content)
        assert await load(store, OLD, env, CHEAP) == (made, 1), what
        with pytest.raises(WrongPassword):
            await load(store, OTHER, env, CHEAP)
        assert await mend_keys(store, made, FLOOR) == 2, what
        assert await names(store) == [keys_name(2)]
        assert await store.get(keys_name(2)) == await store.get(spare_keys_name(2))
        assert await load(store, OLD, env, CHEAP) == (made, 2)
        await store.delete([keys_name(2), spare_keys_name(2)])
        for name in (FIRST, COPY):
            await store.put(name, sound)
    await store.delete([FIRST])
    assert await load(store, OLD, env, CHEAP) == (made, 1)
    assert await mend_keys(store, made, FLOOR) == 1
    assert await store.get(FIRST) == sound


@pytest.mark.parametrize("refusal", [AccessDenied("it is archived"), Unavailable("a sector is bad")])
async def test_keys_that_are_withheld_are_read_from_their_copy(env: RealEnv, refusal: StorageError) -> None:
    store = Trapped()
    made = await create(store, OLD, env, CHEAP)
    sound = await store.get(COPY)

    async def withhold() -> None:
        raise refusal

    def trapped() -> Trapped:
        store.trap("get", "before", withhold, nth=1)
        return store

    assert await load(trapped(), OLD, env, CHEAP) == (made, 1)
    for content in (sound[:-1], b""):
        await store.put(COPY, content)
        with pytest.raises(type(refusal), match=str(refusal)):
            await load(trapped(), OLD, env, CHEAP)
    await store.delete([COPY])
    with pytest.raises(type(refusal), match=str(refusal)):
        await load(trapped(), OLD, env, CHEAP)


async def test_what_was_altered_goes_into_no_change_of_passwords(store: MemoryStore, env: RealEnv) -> None:
    """The slots of all others are those of the copy: with those of the object they would have lost the store."""
    made = await create(store, OLD, env, CHEAP)
    await add_password(store, OLD, OTHER, "other", env, CHEAP)
    await store.put(keys_name(2), damages(await store.get(keys_name(2)))["altered"])
    assert await change_password(store, OTHER, NEW, env, CHEAP) == 3
    for password in (OLD, NEW):
        assert await load(store, password, env, CHEAP) == (made, 3)


async def test_a_copy_that_is_damaged_or_gone_is_made_anew(store: MemoryStore, env: RealEnv) -> None:
    made = await create(store, OLD, env, CHEAP)
    sound = await store.get(FIRST)
    for content in (*damages(sound).values(), None):
        if content is None:
            await store.delete([COPY])
        else:
            await store.put(COPY, content)
        assert await load(store, OLD, env, CHEAP) == (made, 1)
        assert await mend_keys(store, made, FLOOR) == 1
        assert await store.get(COPY) == await store.get(FIRST) == sound


async def test_of_two_damaged_ones_the_object_is_named(store: MemoryStore, env: RealEnv) -> None:
    await create(store, OLD, env, CHEAP)
    sound = await store.get(FIRST)
    await store.put(FIRST, sound[:-1])
    await store.put(COPY, sound[:-2])
    with pytest.raises(
        Corrupt, match=f"^{FIRST} is damaged: its checksum does not fit, and its copy {COPY} is damaged"
    ):
        await load(store, OLD, env, CHEAP)
    await store.delete([COPY])
    with pytest.raises(
        Corrupt, match=f"^{FIRST} is damaged: its checksum does not fit, and its copy {COPY} is missing"
    ):
        await load(store, OLD, env, CHEAP)


async def test_an_old_copy_opens_nothing(store: MemoryStore, env: RealEnv) -> None:
    """Put back beside newer keys that are damaged, and under their number, it counts for nothing."""
    await create(store, OLD, env, CHEAP)
    old = await store.get(COPY)
    await change_password(store, OLD, NEW, env, CHEAP)
    await store.put(keys_name(2), b"damaged")
    for name in (COPY, spare_keys_name(2)):
        await store.put(name, old)
        await store.put(spare_keys_name(2), with_checksum(old[:27] + (2).to_bytes(8, "little") + old[35:-32]))
        for password in (OLD, NEW):
            with pytest.raises((Corrupt, Unsupported, WrongPassword)):
                await load(store, password, env, CHEAP)


async def test_deleted_keys_with_a_copy_do_not_let_an_older_password_in(store: MemoryStore, env: RealEnv) -> None:
    made = await create(store, OLD, env, CHEAP)
    old = await store.get(FIRST)
    await change_password(store, OLD, NEW, env, CHEAP)
    await store.delete([keys_name(2)])
    await store.put(FIRST, old)
    with pytest.raises(WrongPassword):
        await load(store, OLD, env, CHEAP)
    assert await load(store, NEW, env, CHEAP) == (made, 2)
    assert await newest_number(store) == 2


async def test_a_copy_that_is_left_behind_is_said_and_deleted_later(env: RealEnv) -> None:
    store = Trapped()
    await create(store, OLD, env, CHEAP)
    given = store.delete

    async def delete(names: list[str]) -> None:
        if COPY in names:
            await given([name for name in names if name != COPY])
            raise AccessDenied("no")
        await given(names)

    store.delete = delete  # type: ignore[method-assign, assignment]
    with pytest.raises(OldKeysLeft, match=COPY):
        await change_password(store, OLD, NEW, env, CHEAP)
    assert await older(store, 2) == [COPY]
    store.delete = given  # type: ignore[method-assign]
    await change_password(store, NEW, OTHER, env, CHEAP)
    assert await names(store) == [keys_name(3)]


@pytest.mark.parametrize("error", [AccessDenied("no"), StorageError("no")])
async def test_a_store_that_takes_no_copy_changes_its_password_all_the_same(env: RealEnv, error: StorageError) -> None:
    store = Trapped()
    made = await create(store, OLD, env, CHEAP)

    async def refuse() -> None:
        raise error

    store.trap("create", "before", refuse, nth=2)
    assert await change_password(store, OLD, NEW, env, CHEAP) == 2
    assert [info.name for info in await store.list("")] == [keys_name(2)], "the old copy went all the same"
    assert await load(store, NEW, env, CHEAP) == (made, 2)


async def test_who_copies_late_leaves_no_copy_of_what_was_replaced(env: RealEnv) -> None:
    store = Trapped()
    await create(store, OLD, env, CHEAP)

    async def another() -> None:
        await change_password(store, NEW, OTHER, env, CHEAP)

    store.trap("create", "before", another, nth=2)
    await change_password(store, OLD, NEW, env, CHEAP)
    assert await names(store) == [keys_name(3)]


async def test_keys_that_were_changed_since_count_if_the_data_key_vouches_for_them(
    store: MemoryStore, env: RealEnv
) -> None:
    made = await create(store, OLD, env, CHEAP)
    assert await vouched_number(store, made, 1) == 1
    await change_password(store, OLD, NEW, env, CHEAP)
    assert await vouched_number(store, made, 1) == 2
    other = await create(forged := MemoryStore(), OTHER, env, CHEAP)
    await change_password(forged, OTHER, OTHER, env, CHEAP)
    await change_password(forged, OTHER, OTHER, env, CHEAP)
    await store.put(keys_name(3), await forged.get(keys_name(3)))
    assert await vouched_number(store, made, 2) == 2, "who has another key says nothing of this store"
    assert await vouched_number(forged, other, 2) == 3


async def test_the_loser_of_a_race_writes_no_copy(env: RealEnv) -> None:
    store = Trapped()
    made = await create(store, OLD, env, CHEAP)

    async def another() -> None:
        await change_password(store, OLD, OTHER, env, CHEAP)
        await store.delete([spare_keys_name(2)])

    store.trap("create", "before", another)
    with pytest.raises(Conflict):
        await change_password(store, OLD, NEW, env, CHEAP)
    assert [info.name for info in await store.list("")] == [keys_name(2)]
    assert await load(store, OTHER, env, CHEAP) == (made, 2)


@pytest.mark.parametrize("damaged", [True, False])
async def test_keys_without_a_copy_are_not_mended(env: RealEnv, *, damaged: bool) -> None:
    """Who mends them is told, and tries it again."""
    store = Trapped()
    made = await create(store, OLD, env, CHEAP)
    await (store.put(FIRST, b"") if damaged else store.delete([COPY]))

    async def refuse() -> None:
        raise AccessDenied("no")

    store.trap("create", "before", refuse, nth=2 if damaged else 1)
    with pytest.raises(StorageError, match="has no copy"):
        await mend_keys(store, made, FLOOR)
    number = await mend_keys(store, made, FLOOR)
    assert number is not None
    assert await store.get(keys_name(number)) == await store.get(spare_keys_name(number))


UNREACHED = {("delete", "before", 1), ("delete", "after", 1), ("create", "after", 2)}
"""Where a copy is there already, none is created, and nothing deleted."""


@pytest.mark.parametrize("damaged", [True, False])
@pytest.mark.parametrize(("method", "nth"), [("list", 2), ("create", 1), ("create", 2), ("delete", 1)])
async def test_a_crash_while_they_are_mended_leaves_them_to_be_mended(
    env: RealEnv, method: str, nth: int, *, damaged: bool
) -> None:
    for when in ("before",) if method == "list" else ("before", "after"):
        store = Trapped()
        made = await create(store, OLD, env, CHEAP)
        sound = await store.get(FIRST)
        await (store.put(FIRST, sound[:-1]) if damaged else store.delete([FIRST]))
        store.trap(method, when, die, nth=nth)
        if damaged or (method, when, nth) not in UNREACHED:
            with pytest.raises(Interrupted):
                await mend_keys(store, made, FLOOR)
        store.traps.clear()
        assert (await load(store, OLD, env, CHEAP))[0] == made
        number = await mend_keys(store, made, FLOOR)
        assert number is not None
        assert await store.get(keys_name(number)) == await store.get(spare_keys_name(number))
        assert (await load(store, OLD, env, CHEAP))[0] == made
