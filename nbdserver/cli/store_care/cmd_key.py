"""`nbdserver key`: the data key of a store, which all of it is sealed under, and its rotation."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from nbdserver.cli.shared import output, passwords
from nbdserver.cli.shared.backend import perform
from nbdserver.cli.shared.parameters import Place, json_option, store_argument


@click.group()
def key() -> None:
    """See and rotate the data key of a store.

    \b
    nbdserver key rotate
    nbdserver restart
    nbdserver key show

    Everything in the store is sealed under one random key, which each password opens. Who may have got hold of it,
    or of an older keys object and its password, can read what is written later, until it is rotated.
    """


@key.command()
@json_option
@store_argument
def show(place: Place, as_json: bool) -> None:
    """Show which data key is in use, and how far a rotation is.

    What is left of it are the objects of the store that an older key sealed. The server seals them anew, beside its
    clients.
    """
    from nbdserver.admin.key_operations import ShowKey

    with passwords.current(os.environ).secret as known:
        found = perform(place, ShowKey(known), password=known)
    if as_json:
        output.document(found)
    else:
        output.facts(list(_facts(found)))


def _facts(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "key", str(found["key"])
    yield "older keys", ", ".join(map(str, found["older_keys"])) or "none"
    yield "passwords", ", ".join(found["passwords"])
    if found["used"] != found["key"]:
        yield "rotation", f"the server uses key {found['used']}: nbdserver restart has it take key {found['key']}"
    elif (rotation := found["rotation"]) is not None:
        waits = "" if found["goes_on"] else "; it goes on where the store is served"
        yield "rotation", output.rotation(rotation) + waits
    elif found["older_keys"]:
        yield "rotation", "goes on when the store is served again"


@key.command()
@click.option(
    "--also",
    "others",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    metavar="FILE",
    help="A file with another password, which is to open the store still.",
)
@click.option("--drop-others", is_flag=True, help="Passwords that are not given open the store no more.")
@json_option
@store_argument
def rotate(place: Place, others: tuple[Path, ...], drop_others: bool, as_json: bool) -> None:
    """Draw another data key, and have all of the store sealed anew under it.

    \b
    nbdserver key rotate --also backup-host.password
    nbdserver restart

    All passwords are to be given, since each holds the key under itself: one as always, the others with --also;
    --drop-others lets the rest go. A server goes on under its key and takes the new one when it is started again.
    From then on it seals what there is anew, beside its clients, and at the end nothing in the store opens with the
    old key. What somebody copied before stays readable to whoever has that key.
    """
    from nbdserver.admin.key_operations import RotateKey

    with ExitStack() as wiped:
        known = wiped.enter_context(passwords.current(os.environ).secret)
        also = [wiped.enter_context(passwords.of_file(path)) for path in others]
        answer = perform(place, RotateKey(known, also, drop_others), password=known)
    if as_json:
        output.document(answer)
        return
    for label in answer["dropped"]:
        output.line(f"{label}: opens the store no more")
    output.line(f"the store has data key {answer['key']}: a running server takes it with nbdserver restart")
