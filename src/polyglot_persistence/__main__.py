"""`python -m polyglot_persistence` is the `polyglot` command."""

from polyglot_persistence.cli import main

if __name__ == "__main__":
    main()
