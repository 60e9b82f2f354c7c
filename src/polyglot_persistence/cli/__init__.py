"""The command line: parse, call the layer below, print.

Data goes to stdout; progress, logs and errors go to stderr. The exit codes are
`command.EXIT_CODES`; every command that prints data does so as JSON, too, with `--json`.

Invariant: no store, server or data set is imported before the command that needs it runs, so that
`polyglot --help` and shell completion stay quick.
"""

import os
import sys
import traceback

import click

from polyglot_persistence.cli.app import app

_STDERR = 2


def main() -> None:
    """Run the `polyglot` command and exit."""
    _open_standard_streams()
    try:
        app(prog_name="polyglot")
    except OSError as error:
        if not _came_from_printing(error):
            raise
        from polyglot_persistence.telemetry import drop_stdout

        drop_stdout()
        sys.exit(f"polyglot: the output cannot be written: {error.strerror}")


def _came_from_printing(error: OSError) -> bool:
    """Whether it is the output that failed, as on a full disk, and no other file or connection."""
    *_, (last, _) = traceback.walk_tb(error.__traceback__)
    return last.f_code is click.echo.__code__


def _open_standard_streams() -> None:
    """Open what was closed by `>&-`: else a file opened later would get its number."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123
