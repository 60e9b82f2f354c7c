"""A disk that is full for a while."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

BLOCK = bytes(1 << 20)


@contextlib.contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """Leave no room on the disk of this directory meanwhile."""
    ballast = path / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file:
            for block in (BLOCK, BLOCK[:4096]):
                _fill(file.fileno(), block)
        yield
    finally:
        ballast.unlink(missing_ok=True)


def _fill(descriptor: int, block: bytes) -> None:
    while True:
        try:
            if os.write(descriptor, block) < len(block):
                return
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return
