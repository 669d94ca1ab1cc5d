"""`nbdserver device`: make, see, change and remove the disks of a store."""

import sys

import click

from nbdserver.cli.devices.cmd_content import export_command, import_command
from nbdserver.cli.devices.cmd_salvage import salvage_command
from nbdserver.cli.shared import output
from nbdserver.cli.shared.backend import perform
from nbdserver.cli.shared.client_words import sentence
from nbdserver.cli.shared.exit_status import CommandFailed
from nbdserver.cli.shared.parameters import NAME, SIZE, Place, json_option, store_argument, store_option
from nbdserver.config import format_size
from nbdserver.printable import printable


@click.group()
def device() -> None:
    """Make, see, change and remove devices.

    A device is a disk of a fixed size. Its name may have slashes, as in tenant-a/vol1. These commands work
    on a running server, through its admin socket, and on a store at rest, which they open themselves.
    """


@device.command()
@click.argument("name", type=NAME)
@click.argument("size", type=SIZE)
@json_option
@store_option
def create(place: Place, name: str, size: int, as_json: bool) -> None:
    """Make a device of SIZE (10GiB, 10G or plain bytes) that reads as zeros."""
    from nbdserver.admin.operations import CreateDevice

    answer = perform(place, CreateDevice(name, size))
    output.said(answer, f"{name}: created, {format_size(size)}", as_json=as_json)


@device.command("list")
@json_option
@store_argument
def list_command(place: Place, as_json: bool) -> None:
    """List all devices.

    In a pipe: name, size in bytes, attached clients, last change, bytes allocated and live, separated by tabs.
    """
    from nbdserver.admin.operations import ListDevices

    devices = perform(place, ListDevices())["devices"]
    if as_json:
        output.document(devices)
        return
    output.table(
        ("NAME", "SIZE", "CLIENTS", "CHANGED", "ALLOCATED", "LIVE"),
        [
            (
                each["name"],
                output.size(each["size"]),
                str(each["client_count"]),
                output.time(each["modified"]),
                output.size(each["usage"]["allocated_bytes"]),
                output.size(each["usage"]["live_bytes"]),
            )
            for each in devices
        ],
    )


@device.command()
@click.argument("name", type=NAME)
@json_option
@store_option
def show(place: Place, name: str, as_json: bool) -> None:
    """Show one device, what it uses, and who is attached to it.

    A server that follows another one (serve --read-only) says with "view" how old what it shows is.
    """
    from nbdserver.admin.operations import ShowDevice
    from nbdserver.service.condition import view

    answer = {"view": None, **perform(place, ShowDevice(name), shows_view=True)}
    if as_json:
        output.document(answer)
        return
    output.facts(
        [
            ("name", str(answer["name"])),
            *([("view", view(answer["view"]))] if answer["view"] else []),
            ("size", output.size(answer["size"])),
            ("allocated", output.size(answer["usage"]["allocated_bytes"])),
            ("live", output.size(answer["usage"]["live_bytes"])),
            ("unlogged", output.size(answer["usage"]["unlogged_bytes"])),
            ("memtable", output.size(answer["usage"]["memtable_bytes"])),
            *([("written", output.size(answer["usage"]["written_bytes"]))] if answer["served"] else []),
            ("created", output.time(answer["created"])),
            ("changed", output.time(answer["modified"])),
            ("clients", str(answer["client_count"])),
            ("mode", f"{answer['mode']:04o}"),
            ("owner", f"{answer['uid']}:{answer['gid']}"),
            *(("client", sentence(client)) for client in answer["clients"]),
        ]
    )


@device.command()
@click.argument("name", type=NAME)
@click.argument("size", type=SIZE)
@click.option("--shrink", is_flag=True, help="Allow a smaller size, which cuts data off for good.")
@json_option
@store_option
def resize(place: Place, name: str, size: int, shrink: bool, as_json: bool) -> None:
    """Give a device another size.

    It may grow while clients are attached; they see the new size when they attach again. It shrinks only with
    --shrink and without clients.
    """
    from nbdserver.admin.operations import ResizeDevice

    answer = perform(place, ResizeDevice(name, size, shrink))
    output.said(answer, f"{name}: now {format_size(size)}", as_json=as_json)


@device.command()
@click.argument("old", type=NAME)
@click.argument("new", type=NAME)
@json_option
@store_option
def rename(place: Place, old: str, new: str, as_json: bool) -> None:
    """Give a device another name. No client may be attached."""
    from nbdserver.admin.operations import RenameDevice

    answer = perform(place, RenameDevice(old, new))
    output.said(answer, f"{old}: now {new}", as_json=as_json)


@device.command()
@click.argument("name", metavar="DEVICE[@SNAPSHOT]", type=NAME)
@click.argument("new", type=NAME)
@json_option
@store_option
def clone(place: Place, name: str, new: str, as_json: bool) -> None:
    """Make a device NEW that holds what a snapshot holds, or what a device holds now. No data is copied."""
    from nbdserver.admin.snapshot_operations import CloneDevice

    device, _, snapshot = name.partition("@")
    answer = perform(place, CloneDevice(device, snapshot, new))
    output.said(answer, f"{new}: a clone of {name}", as_json=as_json)


@device.command()
@click.argument("name", type=NAME)
@click.option("--yes", is_flag=True, help="Do not ask, on a terminal either.")
@json_option
@store_option
def delete(place: Place, name: str, yes: bool, as_json: bool) -> None:
    """Remove a device and all its data. No client may be attached.

    On a terminal it asks first; where standard input is none, as in a script, it does not.
    """
    from nbdserver.admin.operations import DeleteDevice

    if not yes and sys.stdin.isatty():
        shown = printable(name)
        if not click.confirm(f"Delete {shown} with all its data?", err=True):
            raise CommandFailed(f"{shown} was left as it is")
    answer = perform(place, DeleteDevice(name))
    output.said(answer, f"{name}: deleted", as_json=as_json)


device.add_command(import_command)
device.add_command(export_command)
device.add_command(salvage_command)
