"""A plan is a pure function of its seed, bounded, and has what it promises."""

from tests.soak.plan import AWAY, HARD, LASTING, LONG_SECONDS, PESTS, plan

SECONDS = 48.0


def test_one_seed_is_one_plan() -> None:
    assert plan(7, "minio", SECONDS) == plan(7, "minio", SECONDS)
    assert plan(7, "minio", SECONDS) != plan(8, "minio", SECONDS)


def test_faults_come_one_after_the_other_within_their_life() -> None:
    for seed in range(300):
        for store in AWAY:
            for life in plan(seed, store, SECONDS).lives:
                ends = 0.0
                for fault in life.faults:
                    assert ends <= fault.begins < fault.ends
                    ends = fault.ends
                assert (ends > life.seconds) == (life.ending == "killed in an outage")
                assert sum(kind.startswith("withheld") for kind in life.lasting) <= 1
                assert all(pest.begins < life.seconds for pest in life.pests)


def test_each_soak_kills_and_ends_with_a_stop() -> None:
    for seed in range(300):
        lives = plan(seed, "file", SECONDS).lives
        assert any(life.ending.startswith("killed") for life in lives)
        assert lives[-1].ending.startswith("stopped")


def test_a_long_soak_has_an_outage_longer_than_any_request_may_take() -> None:
    for seed in range(100):
        for store in AWAY:
            planned = plan(seed, store, LONG_SECONDS)
            (outage,) = planned.lives[0].faults
            assert outage.kind in AWAY[store]
            assert outage.ends - outage.begins > 30
            assert sum(life.seconds for life in planned.lives) == LONG_SECONDS


def test_all_that_may_happen_happens() -> None:
    for store in AWAY:
        lives = [life for seed in range(100) for life in plan(seed, store, SECONDS).lives]
        assert {fault.kind for life in lives for fault in life.faults} == {*AWAY[store], *HARD[store]}
        assert {kind for life in lives for kind in life.lasting} == {*LASTING[store]}
        assert {pest.kind for life in lives for pest in life.pests} == {*PESTS}
