"""The command line: parse, call the layer below, print.

Data goes to stdout; progress, logs and errors go to stderr. The exit codes are
`command.EXIT_CODES`; every command that prints data does so as JSON, too, with `--json`.

Invariant: no store, server or data set is imported before the command that needs it runs, so that
`polyglot --help` and shell completion stay quick.
"""

from polyglot_persistence.cli.app import app


def main() -> None:
    """Run the `polyglot` command and exit."""
    app(prog_name="polyglot")
