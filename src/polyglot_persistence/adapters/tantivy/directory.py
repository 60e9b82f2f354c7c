"""The directory of the index: which index is current, and when one is abandoned.

    DIR/current          names the index in use and its form; replaced in one step
    DIR/building         the same of an index that is to take its place
    DIR/orders-<id>/     tantivy's files
    DIR/lock             held while an index is created or takes the other's place
    DIR/writing          held in common while the index in use is written to

Every index has a directory of its own name, so a process that still writes into an abandoned index
never touches its successor.

Invariant: an index is abandoned only for its own state (missing, damaged, of an older form), never
for a shortage of the machine (handles, space, permissions). One of a newer form is left alone:
otherwise an old and a new process would replace each other's in turns.
"""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
import tantivy

from polyglot_persistence.adapters.tantivy.documents import FORM, READ_FORM_MIN, schema
from polyglot_persistence.domain.order import new_id
from polyglot_persistence.errors import UnavailableError

# Messages of tantivy that mean a damaged index and not a shortage of the machine; the contract test
# of damage provokes each.
_DAMAGED = (
    "Data corrupted",
    "FileDoesNotExist",
    "DoesNotExist(",
    "kind: InvalidData",
    "Incompatible",
)

_LOCK_LOOK_SECONDS = 0.01

REMEDY = "start a worker, which builds it anew, or run polyglot search rebuild"


class MissingIndexError(UnavailableError):
    """There is no index that this version can use."""


class Current(NamedTuple):
    """The index in use."""

    name: str
    form: int


class OpenIndex(NamedTuple):
    """A handle on the index that was current when it was opened."""

    name: str
    handle: tantivy.Index


Role = Literal["current", "building"]


class IndexDirectory:
    """The directory of the search index; blocking."""

    def __init__(self, path: Path, role: Role = "current") -> None:
        self._path = path
        self.role = role

    def current(self, *, to_read: bool = False) -> str:
        """Return the name of the index in use; for reading, it may have an older form.

        Raises:
            MissingIndexError: there is none of such a form.
            UnavailableError: it is of a newer form.
        """
        try:
            current = msgspec.json.decode((self._path / self.role).read_bytes(), type=Current)
        except FileNotFoundError:
            raise MissingIndexError(f"search index: none in {self._path}", remedy=REMEDY) from None
        except ValueError as error:
            raise MissingIndexError(
                f"search index: {self._path}/{self.role} is damaged",
                remedy=REMEDY,
            ) from error
        if current.form > FORM:
            raise UnavailableError(
                f"search index: {self._path} was made by a newer version (form {current.form}, "
                f"ours is {FORM})",
                remedy="run the newer version of this program",
            )
        if current.form < (READ_FORM_MIN if to_read else FORM):
            raise MissingIndexError(
                f"search index: {self._path} has form {current.form}, wanted is {FORM}",
                remedy=REMEDY,
            )
        return current.name

    def open(self, *, to_read: bool = False) -> OpenIndex:
        """Open the index in use; for reading, it may have an older form.

        Raises:
            MissingIndexError: there is none that this version can use.
            ValueError: it cannot be opened now.
        """
        while True:
            name = self.current(to_read=to_read)
            try:
                with damage_is_absence():
                    return OpenIndex(name, tantivy.Index.open(str(self._path / name)))
            except MissingIndexError:
                if self.current(to_read=to_read) == name:  # else it was replaced meanwhile
                    raise

    def begin(self, timeout_seconds: float) -> str:
        """Create an empty index in this role, replacing any other; return its name."""
        self._path.mkdir(parents=True, exist_ok=True)
        name = f"orders-{new_id().hex}"
        with self._locked(timeout_seconds):
            (self._path / name).mkdir()
            tantivy.Index(schema(), str(self._path / name), reuse=False)
            temporary = self._path / f"{self.role}.new"
            with temporary.open("wb") as file:
                file.write(msgspec.json.encode(Current(name, FORM)))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path / self.role)
            self._sync()
            self._remove_unnamed()
        return name

    def swap(self, timeout_seconds: float) -> None:
        """Make the built index the one in use."""
        with self._locked(timeout_seconds):
            (self._path / "building").replace(self._path / "current")
            self._sync()

    def clean_up(self, timeout_seconds: float) -> None:
        """Remove every index that has no role."""
        with self._locked(timeout_seconds):
            self._remove_unnamed()

    @contextlib.contextmanager
    def writing(self, timeout_seconds: float, *, alone: bool = False) -> Iterator[None]:
        """Hold the right to write to the index in use, shared or exclusive."""
        kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        if not self._path.is_dir():
            raise MissingIndexError(f"search index: none in {self._path}", remedy=REMEDY)
        with self._locked(timeout_seconds, "writing", kind):
            yield

    def _sync(self) -> None:
        directory = os.open(self._path, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _remove_unnamed(self) -> None:
        named = set()
        for role in ("current", "building"):
            with contextlib.suppress(OSError, ValueError):
                named.add(msgspec.json.decode((self._path / role).read_bytes(), type=Current).name)
        for left in self._path.glob("orders-*"):
            if left.name not in named:
                shutil.rmtree(left, ignore_errors=True)

    @contextlib.contextmanager
    def _locked(
        self, timeout_seconds: float, name: str = "lock", kind: int = fcntl.LOCK_EX
    ) -> Iterator[None]:
        deadline = time.monotonic() + timeout_seconds
        with (self._path / name).open("a") as file:
            while True:
                try:
                    fcntl.flock(file, kind | fcntl.LOCK_NB)
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(_LOCK_LOOK_SECONDS)
                else:
                    break
            yield  # closing the file releases it, and so does a crash


@contextlib.contextmanager
def damage_is_absence() -> Iterator[None]:
    """Turn tantivy's errors for a damaged index into `MissingIndexError`."""
    try:
        yield
    except ValueError as error:
        if any(sign in str(error) for sign in _DAMAGED):
            raise MissingIndexError(f"search index: damaged: {error}", remedy=REMEDY) from error
        raise
