"""`nbdserver password`: the password of a store."""

import os

import click

from nbdserver.cli import output, passwords
from nbdserver.cli.backend import perform
from nbdserver.cli.parameters import Place, json_option, store_option


@click.group()
def password() -> None:
    """Change the password of a store."""


@password.command()
@json_option
@store_option
def change(place: Place, as_json: bool) -> None:
    """Replace the password by another one.

    The new one comes from NBDSERVER_NEW_PASSWORD, NBDSERVER_NEW_PASSWORD_FILE,
    NBDSERVER_NEW_PASSWORD_COMMAND, the systemd credential new-password, or a prompt. One small object is
    written; the data stays as it is, and a running server goes on. Who knows the old password and has a
    copy of the old object can still read the store.
    """
    from nbdserver.admin.operations import ChangePassword

    with passwords.current(os.environ).secret as old, passwords.new(os.environ).secret as new:
        answer = perform(place, ChangePassword(old, new), password=old)
    if as_json:
        output.document(answer)
    else:
        click.echo("the password was changed")
