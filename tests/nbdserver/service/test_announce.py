"""URIs, and the commands that attach them."""

import shlex
import sys
from pathlib import Path

import pytest

from nbdserver.kernel_client.export_address import parse_uri
from nbdserver.service.announce import Address, Tcp, Unix, announce
from nbdserver.service.captive import variables


@pytest.mark.parametrize(
    ("address", "name", "uri"),
    [
        (Tcp("127.0.0.1", 10809), "vol1", "nbd://127.0.0.1/vol1"),
        (Tcp("127.0.0.1", 1), "tenant-a/vol1", "nbd://127.0.0.1:1/tenant-a/vol1"),
        (Tcp("::1", 10809), "v", "nbd://[::1]/v"),
        (Tcp("0.0.0.0", 10809), "v", "nbd://127.0.0.1/v"),
        (Tcp("::", 5), "v", "nbd://[::1]:5/v"),
        (Unix(Path("/run/a b.sock")), "a?b%c", "nbd+unix:///a%3Fb%25c?socket=/run/a%20b.sock"),
    ],
)
def test_a_line_to_paste(address: Address, name: str, uri: str) -> None:
    (line,) = announce([address], [name])
    assert line.uri == uri
    program, command, address_given = shlex.split(line.attach_line)
    assert (Path(program).name, command, address_given) == (Path(sys.argv[0]).name, "attach", uri)
    assert parse_uri(address_given).export == name


@pytest.mark.parametrize(
    ("address", "uri"),
    [
        (Tcp("127.0.0.1", 10809, tls=True), "nbds://127.0.0.1/v"),
        (Tcp("0.0.0.0", 10809, tls=True, certified="storage.example.com"), "nbds://storage.example.com/v"),
        (Tcp("127.0.0.1", 10809, tls=True, certified="localhost"), "nbds://localhost/v"),
        (Tcp("0.0.0.0", 10809, tls=True), "nbds://HOST/v"),
        (Tcp("::", 10809, tls=True, certified="2001:db8::1"), "nbds://[2001:db8::1]/v"),
        (Unix(Path("/run/s"), tls=True), "nbds+unix:///v?socket=/run/s"),
    ],
)
def test_what_a_client_needs_for_tls(address: Address, uri: str) -> None:
    (line,) = announce([address], ["v"])
    assert line.uri == uri
    assert line.attach_line.endswith(" -persist -cacertfile ca-cert.pem")
    (line,) = announce([address], ["v"], verify_peer=True)
    assert line.attach_line.endswith(" -certfile client-cert.pem -keyfile client-key.pem")


def test_names_are_quoted_for_the_shell() -> None:
    name = "my disk; rm -rf /"
    (line,) = announce([Tcp("127.0.0.1", 10809, tls=True)], [name])
    assert "-name 'my disk; rm -rf /' -connections 4 -timeout 600 -persist" in line.attach_line
    (line,) = announce([Unix(Path("/run/$(reboot)"))], [name])
    assert shlex.split(line.attach_line)[1:] == ["attach", line.uri]
    assert parse_uri(line.uri).unix == Path("/run/$(reboot)")


def test_every_export_at_every_address() -> None:
    lines = announce([Tcp("127.0.0.1", 1), Unix(Path("/s"))], ["a", "b"])
    assert [(line.name, line.uri) for line in lines] == [
        ("a", "nbd://127.0.0.1:1/a"),
        ("b", "nbd://127.0.0.1:1/b"),
        ("a", "nbd+unix:///a?socket=/s"),
        ("b", "nbd+unix:///b?socket=/s"),
    ]


def test_what_a_captive_command_is_told() -> None:
    assert variables(Unix(Path("/s")), "a") == {
        "uri": "nbd+unix:///a?socket=/s",
        "nbd": "nbd:unix:/s:exportname=a",
        "unixsocket": "/s",
    }
    assert variables(Tcp("0.0.0.0", 7, tls=True, certified="x"), "a")["uri"] == "nbds://127.0.0.1:7/a"
    assert variables(Tcp("0.0.0.0", 7), "a") == {
        "uri": "nbd://127.0.0.1:7/a",
        "nbd": "nbd:127.0.0.1:7:exportname=a",
        "unixsocket": "",
    }
