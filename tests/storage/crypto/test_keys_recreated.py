"""Keys whose object somebody deleted from outside while passwords were changed, and whose number a stalled change then
creates anew: what was acknowledged opens the store, and its copy, which is all that is left of it, stays.
"""

import pytest

from storage.crypto.keys import create, keys_name, load
from storage.crypto.mend_keys import mend_keys
from storage.crypto.password_slots import change_password
from storage.crypto.spare_keys import spare_keys_name
from storage.env import RealEnv
from storage.errors import Conflict, WrongPassword
from tests.storage.crypto.key_samples import CHEAP, NEW, OLD, OTHER, names
from tests.storage.crypto.trapped import Interrupted, Trapped, die

FLOOR = CHEAP.memory_kib_min


async def test_a_stalled_change_of_a_number_that_was_won_and_deleted_has_no_effect(env: RealEnv) -> None:
    store = Trapped()
    made = await create(store, OLD, env, CHEAP)
    won: list[bytes] = []

    async def another() -> None:
        await change_password(store, OLD, OTHER, env, CHEAP)
        won.append(await store.get(keys_name(2)))
        await store.delete([keys_name(2)])

    store.trap("create", "before", another)
    with pytest.raises(Conflict):
        await change_password(store, OLD, NEW, env, CHEAP)
    assert [info.name for info in await store.list("")] == [spare_keys_name(2)]
    assert await load(store, OTHER, env, CHEAP) == (made, 2)
    with pytest.raises(WrongPassword):
        await load(store, NEW, env, CHEAP)
    assert await mend_keys(store, made, FLOOR) == 2
    assert [await store.get(keys_name(2)), await store.get(spare_keys_name(2))] == won * 2


async def test_whose_copy_comes_first_has_won_though_the_other_was_there_before(env: RealEnv) -> None:
    store = Trapped()
    made = await create(store, OLD, env, CHEAP)

    async def another() -> None:
        await store.delete([keys_name(2)])
        await change_password(store, OLD, OTHER, env, CHEAP)

    store.trap("create", "before", another, nth=2)
    with pytest.raises(Conflict):
        await change_password(store, OLD, NEW, env, CHEAP)
    assert await names(store) == [keys_name(2)]
    assert await load(store, OTHER, env, CHEAP) == (made, 2)
    assert await store.get(keys_name(2)) == await store.get(spare_keys_name(2))


async def test_two_sound_ones_that_differ_stay_until_a_password_is_changed(env: RealEnv) -> None:
    """What is left where the change that came late died before it could take back what it had created."""
    store = Trapped()
    made = await create(store, OLD, env, CHEAP)

    async def another() -> None:
        await change_password(store, OLD, OTHER, env, CHEAP)
        await store.delete([keys_name(2)])
        store.trap("create", "after", die, nth=0)

    store.trap("create", "before", another)
    with pytest.raises(Interrupted):
        await change_password(store, OLD, NEW, env, CHEAP)
    both = [await store.get(keys_name(2)), await store.get(spare_keys_name(2))]
    with pytest.raises(Conflict, match="both sound"):
        await mend_keys(store, made, FLOOR)
    assert [await store.get(keys_name(2)), await store.get(spare_keys_name(2))] == both
    for password in (NEW, OTHER):
        assert await load(store, password, env, CHEAP) == (made, 2)
    assert await change_password(store, OTHER, OLD, env, CHEAP) == 3
    assert await names(store) == [keys_name(3)]
    assert await mend_keys(store, made, FLOOR) == 3
