"""`nbdserver password`: the passwords of a store, each with a label, and a recovery sheet to print."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from nbdserver.cli.shared import output, passwords
from nbdserver.cli.shared.backend import perform
from nbdserver.cli.shared.parameters import NAME, Place, json_option, option, store_argument, store_option
from nbdserver.cli.shared.standard import complain
from nbdserver.cli.store_care import recovery_sheet
from nbdserver.printable import printable, shell_word

if TYPE_CHECKING:
    from storage.errors import Unfinished
    from storage.secret import Secret


@click.group()
def password() -> None:
    """See, add, change and remove the passwords of a store.

    \b
    nbdserver password add backup-host
    nbdserver password list
    nbdserver password sheet > sheet.txt

    Each opens the store. A change writes one small object and no data, and a running server goes on. Who has
    a copy of an older object can still read the store with the passwords of then.
    """


@password.command("list")
@json_option
@store_argument
def list_command(place: Place, as_json: bool) -> None:
    """List the passwords by label: since when they are there, and which one was given.

    In a pipe: label, time, and yes or no, separated by tabs.
    """
    from nbdserver.admin.password_operations import ListPasswords

    with passwords.current(os.environ).secret as known:
        found = perform(place, ListPasswords(known), password=known)["passwords"]
    if as_json:
        output.document(found)
        return
    output.table(
        ("LABEL", "SINCE", "GIVEN"),
        [(each["label"], output.time(each["created"]), "yes" if each["given"] else "no") for each in found],
    )


@password.command()
@json_option
@store_argument
def change(place: Place, as_json: bool) -> None:
    """Replace the password that is given by another one; its label stays.

    \b
    NBDSERVER_NEW_PASSWORD_FILE=new nbdserver password change

    The new one comes from NBDSERVER_NEW_PASSWORD, NBDSERVER_NEW_PASSWORD_FILE,
    NBDSERVER_NEW_PASSWORD_COMMAND, the systemd credential new-password, or a prompt. One small object is
    written; the data stays as it is, and a running server goes on. Who knows the old password and has a
    copy of the old object can still read the store.
    """
    from nbdserver.admin.password_operations import ChangePassword

    with passwords.current(os.environ).secret as old, passwords.new(os.environ).secret as new:
        answer = perform(place, ChangePassword(old, new), password=old)
    if as_json:
        output.document(answer)
    else:
        click.echo("the password was changed")


@password.command()
@click.argument("label", type=NAME)
@json_option
@store_option
def add(place: Place, label: str, as_json: bool) -> None:
    """Let another password open the store too, under LABEL.

    \b
    NBDSERVER_NEW_PASSWORD_FILE=new nbdserver password add backup-host

    The new one comes from where `password change` takes it. There may be 16; each that a start has to try
    takes half a second.
    """
    from nbdserver.admin.password_operations import AddPassword

    with passwords.current(os.environ).secret as known, passwords.new(os.environ).secret as new:
        answer = perform(place, AddPassword(known, new, label), password=known)
    if as_json:
        output.document(answer)
    else:
        output.line(f"{label}: added")


@password.command()
@click.argument("label", type=NAME)
@json_option
@store_option
def remove(place: Place, label: str, as_json: bool) -> None:
    """Let the password under LABEL open the store no more.

    \b
    nbdserver password remove backup-host

    The last one cannot be removed. Any password will do to ask for it, also the one that is removed.
    """
    from nbdserver.admin.password_operations import RemovePassword

    with passwords.current(os.environ).secret as known:
        answer = perform(place, RemovePassword(known, label), password=known)
    if as_json:
        output.document(answer)
    else:
        output.line(f"{label}: removed")


@password.command()
@option("--label", default="recovery", show_default=True, help="What the code is called in `password list`.")
@json_option
@store_argument
def sheet(place: Place, label: str, as_json: bool) -> None:
    """Add a recovery code as one more password, and print the sheet to keep, as plain text.

    \b
    nbdserver password sheet | lp

    The code is drawn here and shown this once. It opens the store whatever becomes of the other passwords, so
    the sheet belongs where nobody reads it: `password remove recovery` makes it worthless.
    """
    from storage.errors import OutOfSpace, Unavailable

    with passwords.current(os.environ).secret as known:
        code = recovery_sheet.draw()
        added = False
        try:
            left = _add_code(place, known, code, label)
            added = True
            if as_json:
                output.document({"label": label, "code": code, "store": place.store})
            else:
                click.echo(recovery_sheet.text(place.store, label, code, output.today()), nl=False)
            sys.stdout.flush()
        except (OSError, Unavailable, OutOfSpace, KeyboardInterrupt):
            _say_lost(place, label, added=added)
            raise
    if left is not None:
        raise left


def _add_code(place: Place, known: Secret, code: str, label: str) -> Unfinished | None:
    """Have it open the store. What is left to do then must keep nobody from the sheet: it is in force."""
    from nbdserver.admin.password_operations import AddPassword
    from storage.errors import Unfinished
    from storage.secret import Secret

    try:
        with Secret(code.encode()) as new:
            perform(place, AddPassword(known, new, label), password=known)
    except Unfinished as error:
        return error
    return None


def _say_lost(place: Place, label: str, *, added: bool) -> None:
    """Say what to do about a code of which no sheet was written: its label would be taken for that of a sheet."""
    shown = printable(repr(label))
    what = f"the code was added as {shown}, and" if added else f"if `password list` has {shown}, added just now,"
    remove = f"nbdserver password remove {shell_word(label)} --store {shell_word(place.store)}"
    complain(f"{what} nobody has it: {remove}")
