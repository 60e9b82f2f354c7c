"""Secrets that a file holds: passwords, addresses with one, and API keys.

Invariant: what is read is bounded, and no error's text holds any of it.
"""

import errno
from pathlib import Path

from polyglot_persistence.domain.access import KeyList, read_key_list
from polyglot_persistence.errors import ConfigurationError

_KIB = 1024
_SECRET_FILE_BYTES_MAX = 64 * _KIB
_OUT_OF_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def text_of(path: Path) -> str:
    """Return the text of a secret's file, without white space around it or a byte order mark.

    Raises:
        ValueError: it cannot be read, or is too long; caused by what the system said.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(_SECRET_FILE_BYTES_MAX).strip()
            is_cut = bool(file.read(1))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ValueError(f"cannot read {path}: {reason}") from error
    if is_cut:
        raise ValueError(f"{path} has more than {_SECRET_FILE_BYTES_MAX // _KIB} KiB of text")
    return text


def secret_of(name: str, path: Path, *, may_be_empty: bool = False) -> str:
    """Return the text of the file that `NAME_FILE` names.

    Raises:
        ConfigurationError: it cannot be read, is too long, or empty where it may not be.
    """
    try:
        text = text_of(path)
    except ValueError as error:
        raise ConfigurationError(f"{name}_FILE: {error}") from error.__cause__
    if not (text or may_be_empty):
        raise ConfigurationError(f"{name}_FILE: {path} is empty")
    return text


def read_api_keys(path: Path) -> KeyList:
    """Return the keys that the file contains now; none if it is empty or cannot be read.

    Raises:
        ConfigurationError: this process can open no file for now, which says nothing of this one.
    """
    try:
        return read_key_list(secret_of("API_KEYS", path, may_be_empty=True))
    except ConfigurationError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in _OUT_OF_FILES:
            raise
        return KeyList([], [str(error)])
