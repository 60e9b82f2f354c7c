"""Who may ask, by the settings; and keys that change while a service runs."""

import asyncio
import contextlib
import os
import resource
from pathlib import Path

import pytest

from polyglot_persistence.bootstrap import access as bootstrap_access
from polyglot_persistence.bootstrap.access import access_of, keep_keys_current, warn_of_strangers
from polyglot_persistence.config import load, read_api_keys
from polyglot_persistence.domain.access import ApiKey, Scope, digest_of
from polyglot_persistence.errors import ConfigurationError, PolyglotError
from polyglot_persistence.telemetry import REGISTRY
from tests.support.eventually import eventually
from tests.support.scripted import FakeClock

OLD, NEW = (ApiKey("shop", frozenset({Scope.READ}), digest_of(s)) for s in (b"old", b"new"))
EMBEDDED = {
    "REDIS_ADDR": "unix:///run/valkey.sock",
    "RABBITMQ_URL": "unix:///run/valkey.sock",
    "ELASTICSEARCH_URL": "tantivy:///var/lib/search",
    "API_HOST": "127.0.0.1",
}
READ, WRITE = Scope.READ, Scope.WRITE


@pytest.mark.parametrize(
    ("environment", "scopes"),
    [
        ({}, {READ, WRITE}),
        ({"API_HOST": "127.0.0.1"}, {READ, WRITE}),
        (EMBEDDED, {READ, WRITE}),
        (EMBEDDED | {"API_HOST": "localhost"}, {READ, WRITE}),
        (EMBEDDED | {"API_HOST": "::1"}, {READ, WRITE}),
        (EMBEDDED | {"API_HOST": "0.0.0.0"}, {READ, WRITE}),
        (EMBEDDED | {"REDIS_ADDR": "redis:6379"}, {READ, WRITE}),
        (EMBEDDED | {"ELASTICSEARCH_URL": "http://es:9200"}, {READ, WRITE}),
        ({"API_KEYS": OLD.line}, set()),
        (EMBEDDED | {"API_KEYS": OLD.line}, set()),
        ({"API_KEYS": OLD.line, "ANONYMOUS_SCOPES": "read,write"}, {READ, WRITE}),
        ({"ANONYMOUS_SCOPES": "none"}, set()),
        (EMBEDDED | {"ANONYMOUS_SCOPES": "read"}, {READ}),
    ],
)
def test_what_needs_no_key(environment: dict[str, str], scopes: set[Scope]) -> None:
    """Operating always does, also in the embedded deployment on the loopback."""
    assert load(environment).scopes_without_key == scopes


def test_nobody_may_operate_without_a_key_by_a_setting() -> None:
    """There is no such value."""
    with pytest.raises(ConfigurationError, match="ANONYMOUS_SCOPES"):
        load({"ANONYMOUS_SCOPES": "admin"})


def test_keys_are_shown_without_their_hashes(tmp_path: Path) -> None:
    """Wherever they come from."""
    path = tmp_path / "keys"
    path.write_text(f"# clients\n{OLD.line}\n")
    written, from_file = load({"API_KEYS": OLD.line}), load({"API_KEYS_FILE": str(path)})
    for settings in (written, from_file):
        (shown,) = [item for item in settings.describe() if item.name == "API_KEYS"]
        assert shown.value == "shop:read:***"
        assert OLD.digest.hex() not in repr(settings)
    assert (written.api_keys_file, from_file.api_keys_file) == (None, path)


def test_a_wrong_key_is_refused_without_repeating_it(tmp_path: Path) -> None:
    """It may be the key itself, in the wrong place."""
    path = tmp_path / "keys"
    path.write_text("shop:read:pp_secret")
    with pytest.raises(ConfigurationError, match="API_KEYS: entry 1 is not name:scopes:hash") as at:
        load({"API_KEYS": "shop:read:pp_secret"})
    with pytest.raises(ConfigurationError, match="API_KEYS: entry 1 is not") as in_file:
        load({"API_KEYS_FILE": str(path)})
    keys, faults = read_api_keys(path)
    assert (keys, len(faults)) == ([], 1)
    assert "entry 1 is not name:scopes:hash" in faults[0]
    assert "pp_secret" not in f"{at.value}{in_file.value}{faults}"


@pytest.mark.parametrize("written", ["{}", "{}\r\n", "\r\n# clients\r\n{}\r\n"])
def test_a_byte_order_mark_costs_no_key(tmp_path: Path, written: str) -> None:
    """Some Windows programs write it; so with every secret that a file holds."""
    keys, address = tmp_path / "keys", tmp_path / "address"
    keys.write_bytes(b"\xef\xbb\xbf" + written.format(OLD.line).encode())
    assert read_api_keys(keys) == ([OLD], [])
    address.write_bytes(b"\xef\xbb\xbfcache:6380\r\n")
    settings = load({"API_KEYS_FILE": str(keys), "REDIS_ADDR_FILE": str(address)})
    assert settings.redis_addr == "cache:6380"


async def test_a_changed_file_changes_who_may_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a restart; and whatever cannot be read admits nobody."""
    monkeypatch.setattr(bootstrap_access, "KEYS_INTERVAL_SECONDS", 0.01)
    path = tmp_path / "keys"
    path.write_text(OLD.line)
    settings = load({"API_KEYS_FILE": str(path)})
    access = access_of(settings, FakeClock())

    def may_ask(*secrets: bytes) -> set[bytes]:
        admitted = set()
        for secret in secrets:
            try:
                access.admit(READ, [(b"x-api-key", secret)], "")
            except PolyglotError:
                continue
            admitted.add(secret)
        return admitted

    async def is_so(expected: set[bytes]) -> None:
        assert may_ask(b"old", b"new") == expected

    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(keep_keys_current(settings, access, stop))
        await is_so({b"old"})
        path.write_text(f"{OLD.line}\n{NEW.line}")
        await eventually(lambda: is_so({b"old", b"new"}))
        for emptied in ("", "  \n", "# nobody", "nonsense"):
            path.write_text(f"{OLD.line}\n{NEW.line}")
            await eventually(lambda: is_so({b"old", b"new"}))
            path.write_text(emptied)
            await eventually(lambda: is_so(set()))
        for bad in ("shop:read:" + "g" * 64, "shop:rd:" + "a" * 64, f"other{OLD.line} {OLD.line}"):
            path.write_text(f"{OLD.line}\n{NEW.line}")
            await eventually(lambda: is_so({b"old", b"new"}))
            path.write_text(f"{bad}\n{NEW.line}")
            await eventually(lambda: is_so({b"new"}))
        for gone in (path.unlink, lambda: path.write_bytes(b"\xff"), lambda: make_large(path)):
            path.write_text(OLD.line)
            await eventually(lambda: is_so({b"old"}))
            gone()
            await eventually(lambda: is_so(set()))
        assert REGISTRY.get_sample_value("polyglot_api_keys_file_faults") == 1
        path.write_text(NEW.line)
        await eventually(lambda: is_so({b"new"}))
        assert REGISTRY.get_sample_value("polyglot_api_keys_file_faults") == 0
        stop.set()


def make_large(path: Path) -> None:
    """Let the file hold a valid key, and more than anybody's keys take."""
    path.write_text(f"{OLD.line}\n{'# ' + 'x' * 1_000}\n" * 70)


def test_a_process_without_descriptors_keeps_what_it_knew(tmp_path: Path) -> None:
    """That it cannot open the file says nothing of the keys in it: an error, and no empty list."""
    path = tmp_path / "keys"
    path.write_text(OLD.line)
    held: list[int] = []
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 8, limits[1])
        )
        with contextlib.suppress(OSError):
            while True:
                held.append(os.dup(0))
        with pytest.raises(ConfigurationError, match="Too many open files"):
            read_api_keys(path)
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert read_api_keys(path).keys == [OLD]


@pytest.mark.parametrize(
    ("environment", "is_warned_of"),
    [
        ({}, True),
        ({"API_HOST": "::"}, True),
        ({"API_HOST": "10.0.0.7"}, True),
        ({"ANONYMOUS_SCOPES": "write", "API_KEYS": OLD.line}, True),
        (EMBEDDED | {"API_HOST": "0.0.0.0"}, True),
        (EMBEDDED, False),
        ({"API_HOST": "localhost"}, False),
        ({"API_KEYS": OLD.line}, False),
        ({"ANONYMOUS_SCOPES": "read"}, False),
    ],
)
def test_strangers_who_may_place_orders_are_warned_of(
    environment: dict[str, str], is_warned_of: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, at the start, wherever another machine reaches it."""
    warn_of_strangers(load(environment))
    assert ("anybody_may_place_orders" in caplog.messages) is is_warned_of
