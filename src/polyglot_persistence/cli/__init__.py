"""The command line: parse, call the layer below, print.

Data goes to stdout; progress, logs and errors go to stderr. The exit codes are
`command.EXIT_CODES`; every command that prints data does so as JSON, too, with `--json`.

Invariant: no store, server or data set is imported before the command that needs it runs, so that
`polyglot --help` and shell completion stay quick.
"""

import os
import sys

from polyglot_persistence.cli.app import app


def main() -> None:
    """Run the `polyglot` command and exit."""
    try:
        app(prog_name="polyglot")
    except OSError as error:
        if _output_is_taken():
            raise
        # What could not be written would be tried once more when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(f"polyglot: the output cannot be written: {error.strerror}")


def _output_is_taken() -> bool:
    """Whether all that was printed could be written, as on no full disk."""
    try:
        sys.stdout.flush()
    except OSError:
        return False
    return True
