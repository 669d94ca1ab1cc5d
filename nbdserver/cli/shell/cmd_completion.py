"""`nbdserver completion`: what a shell needs to complete commands and options; made from the command tree by click."""

import click
from click.shell_completion import get_completion_class

VARIABLE = "_NBDSERVER_COMPLETE"
"""By which the shell asks this program: the name that click derives from the program's."""


@click.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a script that completes commands and options in a shell.

    \b
    source <(nbdserver completion bash)                  # in ~/.bashrc, with bash 4.4 or newer
    source <(nbdserver completion zsh)                   # in ~/.zshrc, after compinit
    nbdserver completion fish > ~/.config/fish/completions/nbdserver.fish
    """
    made = get_completion_class(shell)
    if made is None:
        raise click.UsageError(f"there is no completion for {shell}", ctx)
    click.echo(made(ctx.find_root().command, {}, "nbdserver", VARIABLE).source())
