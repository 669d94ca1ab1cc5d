"""Where an export is: the URIs that `serve` prints are understood, and written alike."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbdserver.kernel_client.export_address import ExportAddress, is_uri, parse_uri
from nbdserver.service.announce import Tcp, Unix

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)


@given(names, st.sampled_from(["127.0.0.1", "::1", "store.example"]), st.integers(1, 65535))
def test_of_tcp(name: str, host: str, port: int) -> None:
    address = ExportAddress(name, host, port)
    assert address.uri == Tcp(host, port).uri(name)
    assert is_uri(address.uri)
    assert parse_uri(address.uri) == address


@given(names, names.map(lambda name: Path("/run") / name.strip("/")))
def test_of_a_unix_socket(name: str, path: Path) -> None:
    address = ExportAddress(name, unix=path)
    assert address.uri == Unix(path).uri(name)
    assert parse_uri(address.uri) == address


@pytest.mark.parametrize("text", ["nbds://h/x", "nbds+unix:///x?socket=/s"])
def test_the_kernel_speaks_no_tls(text: str) -> None:
    with pytest.raises(ValueError, match="speaks no TLS"):
        parse_uri(text)


@pytest.mark.parametrize(
    "text", ["nbd:///x", "nbd://h:port/x", "nbd://[::1/x", "nbd+unix:///x", "nbd+unix://h/x?socket=/s", "nbd:unix:/s"]
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not nbd|Invalid"):
        parse_uri(text)


def test_what_is_of_this_machine() -> None:
    local = ExportAddress("x"), ExportAddress("x", "::1"), ExportAddress("x", unix=Path("/s"))
    assert all(address.is_local for address in local)
    assert not ExportAddress("x", "10.0.0.1").is_local
