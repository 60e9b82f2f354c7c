"""The `polyglot` command: parse, call bootstrap, print."""


def main() -> None:
    """Run the command line."""
    raise SystemExit(2)
