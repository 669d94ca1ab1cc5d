"""What jobs leave alone, and for how long."""

from storage.lsm.compaction.store_look import DAMAGED_SECONDS, LEFT_SECONDS, LeftAlone


def test_all_is_tried_again_in_its_time() -> None:
    """Damage too: somebody may have put the object back from a copy."""
    now = 0.0
    left = LeftAlone(lambda: now)
    left.damaged_sst("damaged")
    left.withheld_sst("withheld")
    assert (len(left), left.waiting()) == (2, 1)
    now = LEFT_SECONDS
    left.expire()
    assert [*left.damaged, *left.withheld] == ["damaged"]
    now = DAMAGED_SECONDS
    left.expire()
    assert len(left) == 0
