"""A roll call says of a listing, however it is cut, what comparing it name by name says."""

import random

import numpy as np
import pytest
from ulid import ULID

from storage.bucket.named_ssts import NamedSsts, RollCall
from storage.format.names import sst_name
from storage.format.sst_list import ids_of
from storage.objects.base import ObjectInfo


@pytest.mark.parametrize("seed", range(6))
def test_it_is_what_comparing_names_says(seed: int) -> None:
    draw = random.Random(seed)
    ids = [str(ULID.from_bytes(draw.randbytes(16))) for _ in range(300)]
    named = {sst: draw.randrange(4) for sst in draw.sample(ids, draw.choice([0, 1, 200]))}
    there = {sst: draw.randrange(4) if sst not in named or draw.random() < 0.1 else named[sst] for sst in ids[::2]}
    columns = NamedSsts(ids_of(named), np.array(list(named.values()), np.int64))
    assert [sst in columns for sst in ids] == [sst in named for sst in ids]
    call = RollCall(columns)
    call.note([ObjectInfo("compacted/stranger", 1)])
    left = [ObjectInfo(sst_name(sst), size) for sst, size in there.items()]
    while left:
        cut = draw.randrange(1, 100)
        call.note(left[:cut])
        left = left[cut:]
    assert sorted(call.missing()) == sorted((sst, size) for sst, size in named.items() if sst not in there)
    assert call.others.keys() == there.keys() - named.keys()
    assert call.resized == {
        sst: (size, named[sst]) for sst, size in there.items() if sst in named and named[sst] != size
    }
