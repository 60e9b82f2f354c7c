"""As root, `polyglot up` hands its API the file of keys, whatever takes the place of that file."""

import os
import resource
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from polyglot_persistence.bootstrap.access import KEYS_INTERVAL_SECONDS
from polyglot_persistence.domain.access import ApiKey, Scope, digest_of, read_key_list
from polyglot_persistence.embedded.directory import Directory
from polyglot_persistence.embedded.handed_keys import INTERVAL_SECONDS, HandedKeys
from polyglot_persistence.embedded.identity import (
    Account,
    Identity,
    account_uid,
    first_that_can_use,
)
from polyglot_persistence.errors import ConfigurationError
from tests.support.eventually import eventually
from tests.support.other_users import NEEDS_ROOT
from tests.support.processes import Up, polyglot_up

pytestmark = [pytest.mark.timeout(240), NEEDS_ROOT]

PROGRAMS, SERVERS = account_uid(Account.PROGRAMS), account_uid(Account.SERVERS)
STATED_SECONDS = 2.0
WITHIN_SECONDS = 10.0
"""Of a machine that does much else."""


@contextmanager
def resource_limit(*, file_bytes: int) -> Iterator[None]:
    """Let this process write no file that is larger."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def line(secret: str) -> str:
    """Return what the file holds of a key."""
    return ApiKey("shop", frozenset({Scope.READ}), digest_of(secret.encode())).line


# --- how another list takes the place of a file


def by_rename(keys: Path, text: str) -> None:
    """As editors and configuration management do, for nobody but root."""
    new = keys.with_name("new")
    new.write_text(text)
    new.chmod(0o600)
    new.rename(keys)


def in_place(keys: Path, text: str) -> None:
    """As a shell does."""
    keys.write_text(text)


def by_link(keys: Path, text: str) -> None:
    """As Kubernetes does: the file is a link, and leads into another directory from then on."""
    version = keys.with_name(f"version-{digest_of(text.encode()).hex()[:8]}")
    version.mkdir(mode=0o700)
    (version / "keys").write_text(text)
    link = keys.with_name("link")
    link.symlink_to(version / "keys")
    link.rename(keys)


def after_a_while(keys: Path, text: str) -> None:
    """The old file goes first."""
    keys.unlink()
    keys.write_text(text)


def removed(keys: Path) -> None:
    keys.unlink()


def emptied(keys: Path) -> None:
    by_rename(keys, "")


def made_binary(keys: Path) -> None:
    keys.write_bytes(b"\xff")


def made_large(keys: Path) -> None:
    keys.write_text(f"{line('last')} #{'x' * 300_000}")


def made_a_pipe(keys: Path) -> None:
    keys.unlink()
    os.mkfifo(keys)


WAYS = [by_rename, by_link, after_a_while, in_place, by_rename]


@pytest.fixture
def keys(directory: Path) -> Path:
    """A file of one key, in a directory that only root enters."""
    (directory / "etc").mkdir(mode=0o700)
    path = directory / "etc" / "keys"
    path.write_text(line("first"))
    path.chmod(0o600)
    return path


@pytest.fixture
async def up(keys: Path, directory: Path) -> AsyncIterator[Up]:
    environment = {"API_KEYS": "", "API_KEYS_FILE": str(keys), "ANONYMOUS_SCOPES": ""}
    async with polyglot_up(directory / "data", environment=environment) as up:
        yield up


async def are_so(up: Up, statuses: dict[str, int]) -> None:
    """Wait until each key is answered so."""

    async def asked() -> None:
        for secret, status in statuses.items():
            answer = await up.request("GET", "/api/orders", headers={"X-API-Key": secret})
            assert answer.status == status, (secret, answer)

    await eventually(asked, within_seconds=WITHIN_SECONDS)


async def test_another_list_counts_without_a_restart(up: Up, keys: Path) -> None:
    """However it came there; a list that is gone or no text holds no keys."""
    known = "first"
    await are_so(up, {known: 200, "other": 401})
    for number, replace in enumerate(WAYS):
        secret = f"key {number}"
        replace(keys, f"# a list\n{line(secret)}\n")
        await are_so(up, {secret: 200, known: 401})
        known = secret
    for spoil in (removed, emptied, made_binary, made_large, made_a_pipe):
        by_rename(keys, line("last"))
        await are_so(up, {"last": 200})
        spoil(keys)
        await are_so(up, {"last": 401})
    by_rename(keys, f"{line('last')} nonsense")
    await are_so(up, {"last": 200})
    log = up.process.log()
    assert f'"api_keys_not_handed_over","path":"{keys}"' in log
    assert f'"api_keys_handed_over","path":"{keys}"' in log
    assert "entry 2 is not name:scopes:hash" in log


def test_both_looks_fit_into_the_time_that_operators_are_told() -> None:
    """Of root's process at the file, and of the API at the copy."""
    assert KEYS_INTERVAL_SECONDS + INTERVAL_SECONDS < STATED_SECONDS
    page = (Path(__file__).parents[2] / "docs" / "ops.md").read_text()
    assert f"counts within {STATED_SECONDS:.0f} s, without a restart" in " ".join(page.split())


# --- who reads what


@pytest.fixture
def handed(keys: Path, directory: Path) -> Iterator[HandedKeys]:
    (directory / "data").mkdir()
    directory.chmod(0o755)
    with closing(Directory.at(directory / "data")) as files:
        yield HandedKeys(keys, files, PROGRAMS)


def test_the_copy_is_for_the_programs_alone(handed: HandedKeys) -> None:
    """Not for servers or others, and nobody but root changes it."""
    handed.begin()
    for uid, may in ((PROGRAMS, True), (SERVERS, False), (65_534, False)):
        identity = Identity(f"user:{uid}:{uid}:", uid, uid)
        assert (first_that_can_use([identity], [handed.copy]) == identity) is may
    for path in (handed.copy, handed.directory):
        assert path.stat().st_uid == 0
        assert path.stat().st_mode & 0o022 == 0


@pytest.mark.parametrize(
    "secret",
    [
        "root:$y$j9T$abcdefgh$0123456789:19000:0:99999:7:::",
        "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSj\n",
        "pp_" + "a" * 43,
        "shop:read:pp_" + "a" * 43,
    ],
)
def test_what_is_no_list_of_keys_does_not_pass(
    secret: str, handed: HandedKeys, keys: Path, directory: Path
) -> None:
    """Though root can read it, and whoever replaces the file can name it."""
    (directory / "secret").write_text(secret)
    keys.unlink()
    keys.symlink_to(directory / "secret")
    handed.begin()
    copied = handed.copy.read_text()
    assert read_key_list(copied).keys == []
    assert read_key_list(copied).faults == read_key_list(secret).faults
    assert not [word for word in secret.split() if word in copied]


def test_what_cannot_be_copied_ends_the_start(handed: HandedKeys, keys: Path) -> None:
    """And leaves no copy of an earlier run."""
    handed.begin()
    keys.unlink()
    with pytest.raises(ConfigurationError, match=f"API_KEYS_FILE: cannot hand over {keys}: No "):
        handed.begin()
    assert not handed.copy.exists()


def test_what_cannot_be_written_leaves_no_copy(handed: HandedKeys, keys: Path) -> None:
    """A full disk must not keep a key valid that was taken out."""
    handed.begin()
    keys.write_text(line("second"))
    with resource_limit(file_bytes=1), pytest.raises(ConfigurationError, match="File too large"):
        handed.begin()
    assert not handed.copy.exists()
    handed.begin()
    assert line("second") in handed.copy.read_text()


def test_a_list_of_comments_is_one(handed: HandedKeys, keys: Path) -> None:
    """The API reads it as it reads the file itself: an empty one it would refuse at its start."""
    keys.write_text("# nobody yet\n")
    handed.begin()
    assert handed.copy.read_text().strip()
    assert read_key_list(handed.copy.read_text()) == ([], [])
