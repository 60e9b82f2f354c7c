"""What this process opens, writes and gives away in directories of others."""

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from polyglot_persistence.embedded.directory import Directory, hand_over, take_back
from polyglot_persistence.errors import ConfigurationError
from tests.support.other_users import NEEDS_ROOT, as_user, interpreter_for_all
from tests.support.processes import started
from tests.support.servers import short_directory

OTHER = 31_999
"""A user that plants things."""
OWNER = 31_998
"""A user that is given a directory."""
RACES = 200
RACE_SECONDS = 5.0


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Directory]:
    (tmp_path / "data").mkdir(mode=0o700)
    with closing(Directory.at(tmp_path / "data")) as found:
        yield found


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file outside that nobody may read, write, give away or remove."""
    path = tmp_path / "victim"
    path.write_text("secret")
    path.chmod(0o600)
    return path


def link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def hard_link(path: Path, victim: Path) -> None:
    path.hardlink_to(victim)


def pipe(path: Path, _victim: Path) -> None:
    os.mkfifo(path)


def directory_of_that_name(path: Path, _victim: Path) -> None:
    path.mkdir()


Plant = Callable[[Path, Path], None]
PLANTS = [link, hard_link, pipe, directory_of_that_name]


def unchanged(victim: Path) -> bool:
    found = victim.stat()
    same = (found.st_uid, stat.S_IMODE(found.st_mode)) == (os.geteuid(), 0o600)
    return same and victim.read_text() == "secret"


@pytest.mark.parametrize("plant", [link, pipe, directory_of_that_name])
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY | os.O_APPEND, os.O_RDWR | os.O_CREAT])
def test_nothing_but_a_file_is_opened(
    plant: Plant, flags: int, directory: Directory, victim: Path
) -> None:
    """And nothing waits for a pipe's other end."""
    plant(directory.path / "name", victim)
    with pytest.raises(ConfigurationError, match="name is no regular file"):
        directory.open("name", flags)
    assert unchanged(victim)


@NEEDS_ROOT
def test_a_file_of_another_user_is_not_opened(directory: Directory) -> None:
    """Whoever owns it may change it at any time."""
    (directory.path / "name").write_text("")
    os.chown(directory.path / "name", OTHER, OTHER)
    with pytest.raises(ConfigurationError, match=f"is user {OTHER}'s"):
        directory.open("name", os.O_RDONLY)
    assert directory.read("name", 10, owner=OTHER) == b""


@pytest.mark.parametrize("plant", [link, hard_link, pipe])
def test_what_is_written_takes_the_place_of_whatever_was_there(
    plant: Plant, directory: Directory, victim: Path
) -> None:
    """A half-written file of before as well; and it is the owner's alone."""
    for name in ("name", "name.new"):
        plant(directory.path / name, victim)
    directory.write("name", "text")
    assert directory.read("name", 10) == b"text"
    found = directory.stat("name")
    assert found is not None
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert directory.names() == ["name"]
    assert unchanged(victim)


def test_a_directory_is_not_entered_by_a_link(directory: Directory, tmp_path: Path) -> None:
    """It is said to be none."""
    (directory.path / "name").symlink_to(tmp_path)
    with pytest.raises(ConfigurationError, match="is no directory"), directory.within("name"):
        pass


@NEEDS_ROOT
def test_what_is_taken_back_holds_nothing_to_follow(
    directory: Directory, victim: Path, tmp_path: Path
) -> None:
    """Files stay, as ours alone; what others put there for us is gone."""
    (directory.path / "log").write_text("kept")
    (directory.path / "log").chmod(0o666)
    (directory.path / "below").mkdir()
    for plant in (link, hard_link, pipe):
        plant(directory.path / plant.__name__, victim)
    for path in (directory.path, directory.path / "log", directory.path / "below"):
        os.chown(path, OTHER, OTHER)
    directory.path.chmod(0o777)
    take_back(directory, 0o711)
    assert sorted(directory.names()) == ["below", "log"]
    found = directory.stat("log")
    assert found is not None
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (0, 0o600)
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o711
    assert directory.path.stat().st_uid == 0
    assert (directory.path / "below").stat().st_uid == OTHER
    assert unchanged(victim)


def tree_of(directory: Directory) -> list[Path]:
    """Make a tree that is another user's; return all that is in it."""
    top = directory.path / "tree"
    paths = [top, top / "a", top / "b", top / "b" / "c", top / "b" / "d"]
    for path in paths:
        if path.name in {"tree", "b", "d"}:
            path.mkdir()
        else:
            path.write_text(path.name)
        os.chown(path, OTHER, OTHER)
    return paths


@NEEDS_ROOT
def test_a_tree_changes_hands_as_a_whole(directory: Directory, victim: Path) -> None:
    """Links are left as they are, and what they lead to; doing it again changes nothing."""
    paths = tree_of(directory)
    (directory.path / "tree" / "link").symlink_to(victim)
    (directory.path / "tree" / "b" / "d" / "directory").symlink_to(victim.parent)
    for _ in range(2):
        hand_over(directory, "tree", OWNER, OWNER)
        assert {path.stat().st_uid for path in paths} == {OWNER}
        assert not any(path.stat().st_mode & 0o077 for path in paths)
    assert unchanged(victim)
    assert victim.parent.stat().st_uid == 0


@NEEDS_ROOT
def test_a_change_of_hands_that_was_cut_short_is_finished(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever had changed by then, the top has not."""
    paths = tree_of(directory)
    fchown, left = os.fchown, 0
    for calls in range(20):
        left = calls

        def cut_short(descriptor: int, uid: int, gid: int) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            fchown(descriptor, uid, gid)

        for path in paths:
            os.chown(path, OTHER, OTHER)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fchown", cut_short)
            try:
                hand_over(directory, "tree", OWNER, OWNER)
            except KeyboardInterrupt:
                assert paths[0].stat().st_uid != OWNER
        hand_over(directory, "tree", OWNER, OWNER)
        assert {path.stat().st_uid for path in paths} == {OWNER}
    assert left > 0, "it was never whole"


@NEEDS_ROOT
@pytest.mark.parametrize("depth", ["", "b", "b/d"])
def test_a_file_with_a_name_elsewhere_is_not_given_away(
    depth: str, directory: Directory, victim: Path
) -> None:
    """Else who may make hard links to any file would be given that file."""
    tree_of(directory)
    (directory.path / "tree" / depth / "link").hardlink_to(victim)
    with pytest.raises(ConfigurationError, match="second name elsewhere"):
        hand_over(directory, "tree", OWNER, OWNER)
    assert unchanged(victim)


@NEEDS_ROOT
@pytest.mark.parametrize("name", ["tree", "tree/b"])
def test_a_link_in_place_of_a_directory_is_not_followed(
    name: str, directory: Directory, victim: Path
) -> None:
    """Neither at the top, where it is an error, nor below."""
    tree_of(directory)
    (directory.path / name).rename(directory.path / "away")
    (directory.path / name).symlink_to(victim.parent)
    if name == "tree":
        with pytest.raises(ConfigurationError, match="is no directory"):
            hand_over(directory, "tree", OWNER, OWNER)
    else:
        hand_over(directory, "tree", OWNER, OWNER)
    assert victim.parent.stat().st_uid == 0
    assert unchanged(victim)


RACER = """
import os, sys
tree, outside = sys.argv[1:]
print("racing", flush=True)
while True:
    for replace in (
        lambda: os.rename(f"{tree}/a", f"{tree}/away"),
        lambda: os.symlink(f"{outside}/victim", f"{tree}/a"),
        lambda: os.rename(f"{tree}/b", f"{tree}/gone"),
        lambda: os.symlink(outside, f"{tree}/b"),
        lambda: os.unlink(f"{tree}/a"),
        lambda: os.rename(f"{tree}/away", f"{tree}/a"),
        lambda: os.unlink(f"{tree}/b"),
        lambda: os.rename(f"{tree}/gone", f"{tree}/b"),
    ):
        try:
            replace()
        except OSError:
            pass
"""


@NEEDS_ROOT
async def test_whoever_exchanges_files_meanwhile_gains_nothing() -> None:
    """Another user replaces files and directories by links, as fast as it can."""
    with short_directory() as top:
        top.chmod(0o755)
        victim = top / "victim"
        victim.write_text("secret")
        victim.chmod(0o600)
        with closing(Directory.at(top)) as directory:
            tree = tree_of(directory)[0]
            racer = [*as_user(OTHER), interpreter_for_all(), "-c", RACER, str(tree), str(top)]
            with started(racer) as process:
                await process.printed("racing")
                for _ in range(RACES):
                    race(directory, tree)
                    assert top.stat().st_uid == 0
                    assert unchanged(victim)


def race(directory: Directory, tree: Path) -> None:
    """Give the tree to the racer, and then away."""
    # By descriptors: a path may lead elsewhere by the time. It passes over what is gone.
    for _, folders, files, descriptor in os.fwalk(tree):
        for name in (*folders, *files):
            with suppress(FileNotFoundError):
                os.chown(name, OTHER, OTHER, dir_fd=descriptor, follow_symlinks=False)
    os.chown(tree, OTHER, OTHER)
    deadline = time.monotonic() + RACE_SECONDS
    while time.monotonic() < deadline:
        with suppress(FileNotFoundError, ConfigurationError):  # it was exchanged at that moment
            hand_over(directory, tree.name, OWNER, OWNER)
            return
