"""The command line: one file per command group, in rooms. Nothing heavy is imported before a command runs."""

from nbdserver.cli.root import main

__all__ = ["main"]
