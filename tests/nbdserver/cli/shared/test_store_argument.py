"""The store as an argument, and as an option: either says it, and one that contradicts the other is refused."""

import pytest

from tests.support.program import Host
from tests.support.stores import StoreUnderTest

pytestmark = pytest.mark.integration

EXIT_USAGE = 2


def test_either_way_says_which_store(host: Host, local_store: StoreUnderTest) -> None:
    place = local_store.location
    host.run("init", place)
    for words in (["check"], ["device", "list", "--json"], ["password", "list"], ["key", "show"], ["gc", "--dry-run"]):
        said = host.run(*words, place).stdout
        assert said == host.run(*words, "--store", place).stdout
        assert said == host.run(*words, NBDSERVER_STORE=place).stdout
    assert host.run("check", place, NBDSERVER_STORE="/of/another").returncode == 0
    done = host.run("check", place, "--store", "/of/another", status=EXIT_USAGE)
    assert "two different stores are given" in done.stderr
