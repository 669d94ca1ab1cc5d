"""`nbdserver`: the tree of commands, and how every one of them ends."""

import os
import sys
import threading
from pathlib import Path

import click

from nbdserver import __version__
from nbdserver.cli.devices.cmd_device import device
from nbdserver.cli.devices.cmd_fs import fs
from nbdserver.cli.serving.cmd_attach import attach, attached, detach
from nbdserver.cli.serving.cmd_client import client
from nbdserver.cli.serving.cmd_dashboard import dashboard
from nbdserver.cli.serving.cmd_restart import restart
from nbdserver.cli.serving.cmd_serve import serve
from nbdserver.cli.serving.cmd_stats import stats
from nbdserver.cli.serving.cmd_status import flush, status
from nbdserver.cli.serving.cmd_top import top
from nbdserver.cli.serving.cmd_trace import trace
from nbdserver.cli.shared.config_file import find, read
from nbdserver.cli.shared.exit_status import INTERRUPTED, report
from nbdserver.cli.shared.standard import open_standard, write_out
from nbdserver.cli.shell.cmd_completion import completion
from nbdserver.cli.shell.cmd_config import config
from nbdserver.cli.snapshots.cmd_replicate import replicate
from nbdserver.cli.snapshots.cmd_snapshot import snapshot
from nbdserver.cli.store_care.cmd_adopt import adopt
from nbdserver.cli.store_care.cmd_bench import bench
from nbdserver.cli.store_care.cmd_check import check
from nbdserver.cli.store_care.cmd_debug import debug
from nbdserver.cli.store_care.cmd_init import init
from nbdserver.cli.store_care.cmd_maintain import compact, gc
from nbdserver.cli.store_care.cmd_password import password
from nbdserver.cli.store_care.cmd_scrub import scrub
from nbdserver.service.core_dumps import forbid_core_dumps


def _configure(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Have commands take what they are not told from the configuration file."""
    if ctx.resilient_parsing:
        return  # a shell asks how a line goes on, and shows no errors
    path = path or find(os.environ)
    if path is not None and isinstance(ctx.command, click.Group):
        ctx.obj = read(path, ctx.command)
        ctx.default_map = ctx.obj.defaults


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True)
@click.version_option(__version__, "-V", "--version", message="nbdserver %(version)s")
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="NBDSERVER_CONFIG",
    is_eager=True,
    expose_value=False,
    callback=_configure,
    help="The configuration file.  [default: nbdserver.toml here, in ~/.config/nbdserver, in /etc/nbdserver]",
)
@click.option("--store", metavar="STORE", help="Where the store is; may also be given to a command.")
def cli(store: str | None) -> None:
    """An NBD server that turns a bucket into disks.

    \b
    nbdserver serve s3://bucket/disks --create vol1=10GiB
    nbdserver attach vol1 --fork

    The password of the store comes from NBDSERVER_PASSWORD, NBDSERVER_PASSWORD_FILE,
    NBDSERVER_PASSWORD_COMMAND, the systemd credential "password", or a prompt. Every option can be set by a
    variable: --state-folder by NBDSERVER_STATE_FOLDER. S3 is reached by the AWS variables and files.

    \b
    Exit status: 0 fine, 1 failed, 2 usage, 3 done but problems found,
    10 no such store, device or bucket, 11 another writer holds or took the store,
    12 wrong password, 13 access denied, 14 unsupported format or store,
    15 the name exists already, 16 in use, or not possible as things are,
    20 data damaged, 21 store unavailable, 22 store full, 130 interrupted.
    More may come: take an unknown one as failed.
    """


for _command in (
    init,
    adopt,
    serve,
    restart,
    device,
    snapshot,
    replicate,
    fs,
    client,
    password,
    status,
    stats,
    top,
    trace,
    dashboard,
    flush,
    check,
    scrub,
    compact,
    gc,
    bench,
    debug,
    attach,
    detach,
    attached,
    config,
    completion,
):
    cli.add_command(_command)


def main() -> int:
    """Run the command line of this process; returns the exit status."""
    forbid_core_dumps()
    open_standard()
    status_ = write_out(_run())
    if threading.active_count() > 1:
        # A request to a store that does not answer must not keep a finished command waiting.
        os._exit(status_)
    return status_


def _run() -> int:
    as_json = "--json" in sys.argv or bool(os.environ.get("NBDSERVER_JSON"))
    try:
        result = cli.main(prog_name="nbdserver", standalone_mode=False)
    except (KeyboardInterrupt, click.Abort):
        click.echo("nbdserver: interrupted", err=True)
        return INTERRUPTED
    except Exception as error:
        return report(error, as_json=as_json)
    return result if isinstance(result, int) else 0
