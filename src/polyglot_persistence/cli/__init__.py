"""The command line: parse, call the layer below, print.

Data goes to stdout; progress, logs and errors go to stderr. Exit codes: 0 done; 1 it failed, or
what was checked is not right; 2 wrong usage or a wrong setting; 130 stopped with Ctrl-C.

Invariant: no store, server or data set is imported before the command that needs it runs, so that
`polyglot --help` and shell completion stay quick.
"""

from polyglot_persistence.cli.app import app


def main() -> None:
    """Run the `polyglot` command and exit."""
    app(prog_name="polyglot")
