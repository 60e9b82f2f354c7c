"""Small disks, each a file system in an image of its own: to be full, or to lose their power.

What lies on one is written by a kernel as on any disk, so what nobody synced is in memory alone for
a while. When the power fails, the image is copied at a moment at which nothing is written to it,
and the copy takes its place: it has what had reached the disk, and no more. So what is there
afterwards had been synced; nothing is proven of disks that say so too early.

Invariant: nothing stays mounted after `unmount` or `move_back`.
"""

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

COMMAND_SECONDS = 120
COMMIT_SECONDS = 300
"""After so long the file system syncs what nobody asked it to: longer than a round."""
STEP_BYTES = 1 << 30
BLOCK_BYTES = 1 << 12
COPIES_MAX = 20


class Disk:
    """A small disk at a directory."""

    def __init__(self, directory: Path, mebibytes: int) -> None:
        """Make it and mount it; the directory must be empty or absent.

        Raises:
            OSError: this machine, or this user, cannot have one.
        """
        self.directory = directory
        self._image = directory.with_name(f"{directory.name}.disk")
        directory.mkdir(exist_ok=True)
        with self._image.open("wb") as image:
            image.truncate(mebibytes << 20)
        try:
            _run("mkfs.ext4", "-q", "-m", "0", self._image)
            self._mount()
        except OSError:
            self._image.unlink()
            raise
        directory.chmod(0o711)
        (directory / "lost+found").rmdir()  # a server wants an empty directory

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Leave no room on it meanwhile."""
        ballast = self.directory / "ballast"
        try:
            with ballast.open("wb") as file:
                _fill(file.fileno())
            yield
        finally:
            ballast.unlink(missing_ok=True)

    def unmount(self) -> None:
        """Take it away, and all that is on it."""
        _run("umount", "--lazy", self.directory)  # a reader of ours may still have it open
        self._image.unlink()

    def written(self) -> tuple[str, ...]:
        """Return numbers that change with whatever is written to it."""
        # Writes, merged, sectors, milliseconds, and how many requests are under way.
        return tuple(self._statistics.read_text().split()[4:9])

    def copy(self) -> Path:
        """Return a copy of its image."""
        copy = self._image.with_suffix(".copy")
        _run("cp", "--sparse=always", self._image, copy)
        return copy

    def replace(self, copy: Path) -> None:
        """Go on with a copy of the image; what was written since is lost."""
        _run("umount", "--lazy", self.directory)
        copy.replace(self._image)
        self._mount()

    def _mount(self) -> None:
        options = f"loop,noatime,noinit_itable,commit={COMMIT_SECONDS}"
        _run("mount", "-t", "ext4", "-o", options, self._image, self.directory)
        device = Path(_run("findmnt", "-n", "-o", "SOURCE", self.directory).strip())
        self._statistics = Path("/sys/block") / device.name / "stat"


def available(directory: Path) -> bool:
    """Whether there can be such disks: that needs root, Linux, and its loop devices."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("mkfs.ext4", "mount", "findmnt"))):
        return False
    try:
        Disk(directory / "probe", 8).unmount()
    except OSError:
        return False
    (directory / "probe").rmdir()
    return True


def copies_of(disks: Sequence[Disk]) -> list[Path]:
    """Return what all of them hold at one moment; whoever writes to them must stand still."""
    for _ in range(COPIES_MAX):
        before = [disk.written() for disk in disks]
        copies = [disk.copy() for disk in disks]
        if before == [disk.written() for disk in disks] and all(n[-1] == "0" for n in before):
            return copies
    raise AssertionError("somebody goes on writing")


def move_onto_disk(directory: Path, mebibytes: int) -> Disk:
    """Put what is in a directory onto a small disk that takes its place; nobody may use it."""
    away = _away(directory)
    directory.rename(away)
    try:
        disk = Disk(directory, mebibytes)
    except OSError:
        directory.rmdir()
        away.rename(directory)
        raise
    _run("cp", "-a", f"{away}/.", directory)
    _run("sync", "--file-system", directory)  # power that fails takes back what servers wrote alone
    return disk


def move_back(disk: Disk) -> None:
    """Put it back to where it came from; nobody may use it."""
    away = _away(disk.directory)
    shutil.rmtree(away)
    _run("cp", "-a", disk.directory, away)
    disk.unmount()
    disk.directory.rmdir()
    away.rename(disk.directory)


def _away(directory: Path) -> Path:
    return directory.with_name(f"{directory.name}.away")


def _fill(descriptor: int) -> None:
    size, step = 0, STEP_BYTES
    while step >= BLOCK_BYTES:
        try:
            os.posix_fallocate(descriptor, size, step)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            step //= 2
        else:
            size += step


def _run(*command: str | Path) -> str:
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=COMMAND_SECONDS
    )
    if done.returncode:
        raise OSError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout
