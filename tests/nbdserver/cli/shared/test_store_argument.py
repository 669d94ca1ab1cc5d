"""The store as an argument, and as an option: either says it, and one that contradicts the other is refused."""

import pytest

from tests.support.program import Host
from tests.support.stores import StoreUnderTest

pytestmark = pytest.mark.integration

EXIT_USAGE = 2


def test_either_way_says_which_store(host: Host, local_store: StoreUnderTest) -> None:
    place = local_store.location
    host.prepare(place)
    host.run("serve", place, "--run", "true")
    said = host.run("password", "list", place).stdout
    assert said == host.run("password", "list", "--store", place).stdout
    assert said == host.run("password", "list", place, NBDSERVER_STORE="/of/another").stdout
    done = host.run("password", "list", place, "--store", "/of/another", status=EXIT_USAGE)
    assert "two different stores are given" in done.stderr
