"""Where the stores of a `polyglot up` are: written into its data directory, for operators.

The file holds settings as a shell takes them, so `set -a; . .data/stores.env` works, too.

Invariant: only the owner can read it, since an address holds a password.
"""

import contextlib
import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from polyglot_persistence.embedded.directory import Directory
from polyglot_persistence.embedded.identity import Identity, identity_of
from polyglot_persistence.embedded.programs import SEARCH, needed
from polyglot_persistence.errors import ConfigurationError

FILE = "stores.env"

_BYTES_MAX = 64 * 1024


def write_addresses(data: Directory, addresses: Mapping[str, str]) -> None:
    """Write the settings that name the stores, in place of those of an earlier start."""
    data.write(
        FILE, "".join(f"{name}={shlex.quote(address)}\n" for name, address in addresses.items())
    )


def read_addresses(data_dir: Path) -> dict[str, str]:
    """Return the settings that name the stores of the `polyglot up` with this data directory.

    Raises:
        ConfigurationError: no such deployment was ever started there, or the file is another's.
    """
    path = data_dir / FILE
    try:
        with contextlib.closing(Directory.at(data_dir)) as data:
            owner = os.fstat(data.descriptor).st_uid
            text = data.read(FILE, _BYTES_MAX, owner=owner)
    except FileNotFoundError:
        text = None
    except OSError as error:
        raise ConfigurationError(f"--stores-of: cannot read {path}: {error.strerror}") from error
    if text is None:
        raise ConfigurationError(
            f"--stores-of: {data_dir} is the data directory of no `polyglot up` or `demo`"
        )
    pairs = (assignment.partition("=") for assignment in shlex.split(text.decode()))
    return {name: address for name, _, address in pairs}


def identity_at(data_dir: Path) -> Identity:
    """Return as whom API and worker of this `polyglot up` run.

    Root becomes that user before it opens what is theirs; anybody else stays.

    Raises:
        ConfigurationError: root cannot.
    """
    with contextlib.closing(Directory.at(data_dir)) as data:
        return identity_of(data.stat(SEARCH) or os.fstat(data.descriptor), [data_dir, *needed()])
