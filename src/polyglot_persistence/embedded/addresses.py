"""Where the stores of a `polyglot up` are: written into its data directory, for operators.

The file holds settings as a shell takes them, so `set -a; . .data/stores.env` works, too.

Invariant: only the owner can read it, since an address holds a password.
"""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from polyglot_persistence.errors import ConfigurationError

FILE = "stores.env"


def write_addresses(data_dir: Path, addresses: Mapping[str, str]) -> None:
    """Write the settings that name the stores, in place of those of an earlier start."""
    lines = [f"{name}={shlex.quote(address)}\n" for name, address in addresses.items()]
    new = data_dir / f"{FILE}.new"
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.writelines(lines)
    new.replace(data_dir / FILE)


def read_addresses(data_dir: Path) -> dict[str, str]:
    """Return the settings that name the stores of the `polyglot up` with this data directory.

    Raises:
        ConfigurationError: no such deployment was ever started there, or the file is another's.
    """
    path = data_dir / FILE
    try:
        text = path.read_text()
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"--stores-of: {data_dir} is the data directory of no `polyglot up` or `demo`"
        ) from error
    except OSError as error:
        raise ConfigurationError(f"--stores-of: cannot read {path}: {error.strerror}") from error
    pairs = (assignment.partition("=") for assignment in shlex.split(text))
    return {name: address for name, _, address in pairs}
