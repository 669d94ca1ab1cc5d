"""`nbdserver restart`: a new server in the place of the one that runs, with a short pause."""

from __future__ import annotations

import os
import subprocess
import sys

import click

from nbdserver.cli.shared.parameters import Place, json_option, store_argument


@click.command()
@json_option
@store_argument
def restart(place: Place, as_json: bool) -> int:
    """Restart the server of a store that runs on this host.

    A new server is started as the old one was, with the same arguments, folder and NBDSERVER variables, by the program
    that is installed now. It gets ready first: what keeps it from starting, as a wrong password or a faulty
    configuration, shows while the old one still serves. Then the old one is asked to stop, ends what is under way and
    makes everything durable, and the new one serves. Clients that attach again, as "nbdserver attach" does, see a
    pause.

    The password and the credentials of the bucket are those of this command's environment, and the new server runs in
    the background, so it needs --log-file, or a system log. What was wanted once (--take-over, --accept-rollback) is
    left out. Of several servers of a store on this host it is the one that writes, or else the one that reads, or else
    the one that stands by. A server that systemd started is restarted by "systemctl restart".
    """
    from nbdserver.admin.client import find_reader, find_server, find_standby
    from storage.errors import AccessDenied, Conflict, NotFound

    kinds = (find_server, find_reader, find_standby)
    server = next((found for find in kinds if (found := find(place.store, os.environ)) is not None), None)
    if server is None:
        raise NotFound(f"no server of {place.store} runs on this host: start one with nbdserver serve")
    about = server.process()
    if about["manager"]:
        raise Conflict(f"process {about['pid']} was started by the service manager: use systemctl restart")
    if about["command"]:
        raise Conflict(f"process {about['pid']} serves for its command (--run) and ends with it")
    if about["uid"] != os.geteuid():
        raise AccessDenied(f"process {about['pid']} is user {about['uid']}'s: restart it as that user")
    # As variables: among the arguments they would need a place, and any of those may be a value, or stand behind "--".
    wanted = ["REPLACE", "FORK", *(["JSON"] if as_json else [])]
    own = {name: value for name, value in os.environ.items() if not name.startswith("NBDSERVER_") or _is_password(name)}
    if own.get("PYTHONPATH"):
        own["PYTHONPATH"] = _from_here(own["PYTHONPATH"])
    return subprocess.run(
        # The folder may be one where others write: nothing of the program comes from there, which gets the password.
        [sys.executable, "-P", "-m", "nbdserver", *about["arguments"]],
        cwd=about["folder"],
        env={
            **own,
            **about["variables"],
            "NBDSERVER_STORE": place.store,
            **{f"NBDSERVER_{option}": "1" for option in wanted},
        },
        check=False,
    ).returncode


def _is_password(name: str) -> bool:
    """Whether a variable is the password, or says where it comes from."""
    from storage.secret import PASSWORD_VARIABLES

    return name.startswith(PASSWORD_VARIABLES)


def _from_here(python_path: str) -> str:
    """The same places for a process that runs in another folder: one without a name is the folder it runs in."""
    return os.pathsep.join(map(os.path.abspath, python_path.split(os.pathsep)))
