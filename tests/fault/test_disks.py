"""The small disks keep what was synced and nothing else, and are full when they are said to be."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fault.disks import Disk, available, copies_of, move_back, move_onto_disk


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    if not available(tmp_path):
        pytest.skip("no disks in images: that needs root, Linux and its loop devices")
    return tmp_path


@pytest.fixture
def disk(directory: Path) -> Iterator[Disk]:
    disk = Disk(directory / "disk", 16)
    yield disk
    disk.unmount()


def write(path: Path, *, synced: bool) -> None:
    with path.open("ab") as file:
        file.write(b"x" * 100_000)
        file.flush()
        if synced:
            os.fsync(file.fileno())


def test_what_nobody_synced_is_lost_with_the_power(disk: Disk) -> None:
    """Else the rounds in which the power fails would prove nothing."""
    write(disk.directory / "synced", synced=True)
    write(disk.directory / "synced", synced=False)
    write(disk.directory / "not synced", synced=False)
    [copy] = copies_of([disk])
    disk.replace(copy)
    assert {path.name: path.stat().st_size for path in disk.directory.iterdir()} == {
        "synced": 100_000
    }


def test_a_full_disk_takes_nothing_and_then_again(disk: Disk) -> None:
    """Neither room nor rights make a difference."""
    with disk.full(), pytest.raises(OSError, match="No space left") as full:
        write(disk.directory / "more", synced=True)
    assert full.value.errno == errno.ENOSPC
    write(disk.directory / "more", synced=True)


def test_what_moves_onto_a_disk_comes_back_as_it_is_by_then(directory: Path) -> None:
    """With owners and modes, and nothing is left of the disk."""
    data = directory / "data"
    data.mkdir(mode=0o750)
    (data / "old").write_text("old")
    os.chown(data, 1234, 1234)
    disk = move_onto_disk(data, 16)
    assert (data.stat().st_uid, data.stat().st_mode & 0o777) == (1234, 0o750)
    assert (data / "old").read_text() == "old"
    (data / "old").unlink()
    (data / "new").write_text("new")
    move_back(disk)
    assert [path.name for path in data.iterdir()] == ["new"]
    assert (data.stat().st_uid, data.stat().st_mode & 0o777) == (1234, 0o750)
    assert [path.name for path in directory.iterdir()] == ["data"]
