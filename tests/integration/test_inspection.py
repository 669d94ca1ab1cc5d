"""What clients learn about an export: nbdinfo, qemu-img, qemu-nbd and nbd-client."""

import json
from typing import Any

from tests.support.commands import run
from tests.support.program import Server
from tests.support.requirements import require

SIZE = 256 << 20


def test_nbdinfo_reports_the_export(server: Server) -> None:
    require("nbdinfo")
    for uri in (server.uri(), server.unix_uri()):
        report: dict[str, Any] = json.loads(run("nbdinfo", "--json", uri))
        assert report["protocol"] == "newstyle-fixed"
        assert report["structured"] is True
        (export,) = report["exports"]
        assert export["export-size"] == SIZE
        assert export["is_read_only"] is False
        for ability in ("flush", "fua", "multi_conn", "trim", "zero", "fast_zero", "df", "cache"):
            assert export[f"can_{ability}"] is True, ability
        allocation, incarnation = export["contexts"]
        assert allocation == "base:allocation"
        assert incarnation.startswith("x-nbdserver:incarnation:")
        assert export["block_size_minimum"] == 1
        assert export["block_size_preferred"] == 4096
        assert export["block_size_maximum"] == 32 << 20


def test_the_empty_name_means_the_only_device(server: Server) -> None:
    require("nbdinfo")
    assert int(run("nbdinfo", "--size", server.uri(""))) == SIZE
    run("nbdinfo", "--size", server.uri("no-such-device"), status=1)


def test_lists_of_exports(server: Server) -> None:
    require("nbdinfo", "nbd-client", "qemu-nbd")
    listed: dict[str, Any] = json.loads(run("nbdinfo", "--json", "--list", f"nbd://127.0.0.1:{server.port}"))
    assert [export["export-name"] for export in listed["exports"]] == ["disk"]
    assert "disk" in run("nbd-client", "-l", "127.0.0.1", str(server.port)).split()
    assert "export: 'disk'" in run("qemu-nbd", "--list", "-b", "127.0.0.1", "-p", str(server.port))
    assert "export: 'disk'" in run("qemu-nbd", "--list", "-k", server.socket)


def test_maps_show_data_and_holes(server: Server) -> None:
    require("nbdinfo", "qemu-img")
    with server.connect() as client:
        client.write(1 << 20, b"x" * (1 << 20))
        client.write(100 << 20, b"y" * 4096)
        client.flush()
    for uri in (server.uri(), server.unix_uri()):
        extents = json.loads(run("nbdinfo", "--map", "--json", uri))
        assert [(extent["offset"], extent["length"], extent["type"]) for extent in extents] == [
            (0, 1 << 20, 3),
            (1 << 20, 1 << 20, 0),
            (2 << 20, 98 << 20, 3),
            (100 << 20, 4096, 0),
            ((100 << 20) + 4096, SIZE - (100 << 20) - 4096, 3),
        ]
    mapped = json.loads(run("qemu-img", "map", "--output=json", "-f", "raw", server.uri()))
    assert [(part["start"], part["length"]) for part in mapped if part["data"]] == [
        (1 << 20, 1 << 20),
        (100 << 20, 4096),
    ]


def test_qemu_img_reports_the_size(server: Server) -> None:
    require("qemu-img")
    report: dict[str, Any] = json.loads(run("qemu-img", "info", "--output=json", "-f", "raw", server.uri()))
    assert report["virtual-size"] == SIZE


def test_the_announced_uri_is_what_clients_take(server: Server) -> None:
    require("nbdinfo")
    words = server.announced.split()
    uris = [word for word in words if word.startswith(("nbd://", "nbd+unix://"))]
    assert uris, server.announced
    for uri in uris:
        assert int(run("nbdinfo", "--size", uri)) == SIZE
