"""The command line: what it prints where, its exit codes, and that it never shows a traceback."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from polyglot_persistence import __version__, bootstrap
from polyglot_persistence.bootstrap import Finding
from polyglot_persistence.cli.app import app
from polyglot_persistence.config import load
from polyglot_persistence.domain.access import Scope, digest_of
from polyglot_persistence.embedded import supervisor
from polyglot_persistence.embedded.addresses import write_addresses
from polyglot_persistence.embedded.directory import Directory
from polyglot_persistence.errors import UnavailableError
from tests.support.eventually import WAIT_SECONDS
from tests.support.import_api import import_api


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine's own environment says."""
    for setting in load({}).describe():
        monkeypatch.delenv(setting.name, raising=False)
        monkeypatch.delenv(f"{setting.name}_FILE", raising=False)


def _run(*arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "polyglot_persistence", *arguments],
        env=os.environ | environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_version() -> None:
    """In both usual ways, from a real process."""
    assert _run("version").stdout == f"polyglot {__version__}\n"
    assert _run("--version").stdout == f"polyglot {__version__}\n"
    assert json.loads(_run("version", "--json").stdout) == {"version": __version__}


USE_SETTINGS = [
    *("api", "worker", "up", "demo --no-open", "migrate", "config", "doctor", "search rebuild"),
    *("audit", "sales rebuild", "dead-letters list", "dead-letters show 1"),
]
"""Every command that reads the settings."""


@pytest.mark.parametrize("command", USE_SETTINGS)
def test_what_is_ignored_is_said_once(
    command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By each command, and not again by the processes that it starts."""
    left: list[str] = []

    async def look(**_: object) -> None:
        left.extend(name for name in ("API_PORT", "OTEL_TRACES_EXPORTER") if name in os.environ)

    monkeypatch.setattr(bootstrap, "run_api", lambda *_: 0)
    monkeypatch.setattr(bootstrap, "run_worker", lambda *_: 0)
    monkeypatch.setattr(supervisor, "up", look)
    monkeypatch.setenv("API_PORT", "tcp://10.0.0.1:8080")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    monkeypatch.setenv("POSTGRES_DSN", "postgresql://nobody@127.0.0.1:1/nothing")
    monkeypatch.setenv("REDIS_ADDR", "127.0.0.1:1")
    monkeypatch.setenv("RABBITMQ_URL", "redis://127.0.0.1:1")
    monkeypatch.setenv("ELASTICSEARCH_URL", f"tantivy://{tmp_path}/search")
    done = CliRunner().invoke(app, command.split())
    said = [line for line in done.stderr.splitlines() if line.startswith("polyglot: warning: ")]
    assert [line.split(": ")[2] for line in said] == ["API_PORT", "OTEL_TRACES_EXPORTER"]
    assert left == []


@pytest.mark.parametrize("command", ["api", "worker", "up", "migrate", "config", "doctor"])
def test_a_wrong_setting_is_one_line(command: str) -> None:
    """Exit code 2, one line on stderr, nothing on stdout."""
    result = _run(command, LOG_LEVEL="loud")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "polyglot: LOG_LEVEL: 'loud' is none of debug, info, warning, error; e.g. info\n"
    )


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["up", "--port", "0"], ["load", "other"], ["load"], ["config", "x"]]
)
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    """With a word on how to use it."""
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr


@pytest.mark.parametrize(
    "arguments", [["up", "--data-dir", ""], ["demo", "--data-dir="], ["--stores-of", "", "doctor"]]
)
def test_no_directory_is_not_the_one_that_one_stands_in(arguments: list[str]) -> None:
    """Where a variable was not set, nothing is strewn there, and its mode stays."""
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "it is empty" in result.stderr


def test_up_takes_its_port_from_the_peers_variable() -> None:
    """API_PORT moves `make run` elsewhere, too."""
    result = CliRunner().invoke(app, ["up"], env={"API_PORT": "nonsense"})
    assert result.exit_code == 2
    assert "API_PORT" in result.stderr


def test_config_is_a_table() -> None:
    """One setting a line, its source last."""
    result = CliRunner().invoke(app, ["config"], env={"READ_CACHE_SECONDS": "7"})
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0] == ["SETTING", "VALUE", "SOURCE"]
    assert ["READ_CACHE_SECONDS", "7", "environment"] in lines
    assert ["REDIS_ADDR", "redis:6379", "default"] in lines


def test_config_explains() -> None:
    """With meaning, bounds and default."""
    result = CliRunner().invoke(app, ["config", "--explain"])
    assert "READ_CACHE_SECONDS=60  (default)" in result.stdout
    assert "0 to 3600; default 60" in result.stdout


def test_config_as_json_masks_passwords() -> None:
    """For programs: every setting, no secret."""
    address = "redis://:hunter2@cache:6379"
    result = CliRunner().invoke(app, ["config", "--json"], env={"REDIS_ADDR": address})
    settings = {setting["name"]: setting for setting in json.loads(result.stdout)}
    assert settings["REDIS_ADDR"]["value"] == "redis://:***@cache:6379"
    assert settings["REDIS_ADDR"]["source"] == "environment"
    assert "hunter2" not in result.output


FINDINGS = [
    Finding("cache", "PASS", "Valkey 9.1.2", ""),
    Finding("cache", "WARN", "appendfsync is everysec", "set it to always"),
    Finding("record", "PASS", "PostgreSQL 18.6", ""),
]


def test_a_warning_is_not_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each finding is a line, with what to do below it; only FAIL is exit code 1."""
    monkeypatch.setattr(bootstrap, "doctor", lambda _: FINDINGS)
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "PASS  cache   Valkey 9.1.2",
        "WARN  cache   appendfsync is everysec",
        "              fix: set it to always",
        "PASS  record  PostgreSQL 18.6",
    ]
    monkeypatch.setattr(bootstrap, "doctor", lambda _: [Finding("queue", "FAIL", "away", "start")])
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout) == [
        {"store": "queue", "level": "FAIL", "detail": "away", "fix": "start"}
    ]


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """None in a pipe, and none with NO_COLOR."""
    monkeypatch.setattr(bootstrap, "doctor", lambda _: FINDINGS)
    green = "\x1b[32mPASS"
    assert green in CliRunner().invoke(app, ["doctor"], color=True).stdout
    assert green not in CliRunner().invoke(app, ["doctor"]).stdout
    no_color = CliRunner().invoke(app, ["doctor"], color=True, env={"NO_COLOR": "1"})
    assert "\x1b" not in no_color.stdout


def test_migrate_tells_what_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line for each migration, or that there was none."""
    monkeypatch.setattr(bootstrap, "migrate", lambda _: ["0001_orders", "0002_more"])
    assert CliRunner().invoke(app, ["migrate"]).stdout == "applied 0001_orders\napplied 0002_more\n"
    assert json.loads(CliRunner().invoke(app, ["migrate", "--json"]).stdout) == {
        "applied": ["0001_orders", "0002_more"]
    }
    monkeypatch.setattr(bootstrap, "migrate", lambda _: [])
    assert CliRunner().invoke(app, ["migrate"]).stdout == "up to date\n"


def test_a_store_that_is_away_is_one_line() -> None:
    """`migrate` against nothing: exit code 1, no traceback."""
    result = _run("migrate", POSTGRES_DSN="host=127.0.0.1 port=1 user=nobody dbname=none")
    assert result.returncode == 1
    assert result.stderr.startswith("polyglot: ")
    assert result.stderr.count("\n") == 1


def _missing(name: str) -> object:
    raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The servers' drivers come with an extra; a bug in our own imports stays visible."""
    monkeypatch.setattr(bootstrap, "run_worker", lambda *_: _missing("pamqp.base"))
    result = CliRunner().invoke(app, ["worker"])
    assert result.exit_code == 2
    assert "pip install 'polyglot-persistence[servers]'" in result.stderr
    monkeypatch.setattr(bootstrap, "run_worker", lambda *_: _missing("polyglot_persistence.oops"))
    result = CliRunner().invoke(app, ["worker"])
    assert isinstance(result.exception, ModuleNotFoundError)


def test_a_processs_exit_code_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `run_api` says is what the shell hears."""
    monkeypatch.setattr(bootstrap, "run_api", lambda *_: 3)
    assert CliRunner().invoke(app, ["api"]).exit_code == 3


def test_other_errors_of_ours_are_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, whatever the command."""

    def refuse(*_: object) -> int:
        raise UnavailableError("the store is away")

    monkeypatch.setattr(bootstrap, "run_api", refuse)
    result = CliRunner().invoke(app, ["api"])
    assert (result.exit_code, result.stderr) == (1, "polyglot: the store is away\n")


def test_ctrl_c_ends_a_load_with_130() -> None:
    """It says how to go on, and shows no traceback."""
    with import_api() as api:
        load = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "polyglot_persistence",
                "load",
                "completejourney",
                "--url",
                api.url,
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert api.arrived.wait(WAIT_SECONDS)
            load.send_signal(signal.SIGINT)
            _, stderr = load.communicate(timeout=30)
        finally:
            load.kill()
    assert load.returncode == 130
    assert re.search(r"stopped: [\d,]+ of 1,469,307 orders are in; run it again to go on", stderr)
    assert "Traceback" not in stderr


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    """`polyglot config | head -1` ends quietly."""
    script = f"'{sys.executable}' -m polyglot_persistence config --explain 2>err | head -1"
    result = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, check=True)
    assert result.stdout.startswith(b"POSTGRES_DSN=")
    assert (tmp_path / "err").read_bytes() == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("command", ["config", "config --json", "--help", "version", "up --help"])
def test_a_full_disk_under_the_output_is_one_line(command: str) -> None:
    """Exit code 1, and no traceback, whoever prints."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "polyglot_persistence", *command.split()],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "polyglot: the output cannot be written: No space left on device"
    ]


def test_a_new_key_is_printed_once_with_its_line() -> None:
    """The line is a setting, and the key is not in it."""
    done = CliRunner().invoke(app, ["api-keys", "new", "shop", "--scopes", "admin,read"])
    assert done.exit_code == 0
    secret, line = (text.split()[1] for text in done.stdout.splitlines())
    (key,) = load({"API_KEYS": line}).api_keys
    assert (key.name, key.digest) == ("shop", digest_of(secret.encode()))
    assert key.scopes == {Scope.READ, Scope.ADMIN}
    made = json.loads(CliRunner().invoke(app, ["api-keys", "new", "shop", "--json"]).stdout)
    (key,) = load({"API_KEYS": made["line"]}).api_keys
    assert key.digest == digest_of(made["key"].encode())


@pytest.mark.parametrize("arguments", [["a b"], ["shop", "--scopes", "root"], ["", "--scopes", ""]])
def test_a_wrong_key_is_a_wrong_command(arguments: list[str]) -> None:
    """One line, and exit code 2."""
    done = CliRunner().invoke(app, ["api-keys", "new", *arguments])
    assert done.exit_code == 2
    assert not done.stdout


def test_the_stores_of_a_data_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their addresses take the place of those of the environment, odd characters and all."""
    dsn = "postgresql://polyglot:it's@/polyglot?host=%2Ftmp%2Fmy%20data&port=5432"
    data = Directory.at(tmp_path)
    write_addresses(data, {"POSTGRES_DSN": "old"})
    write_addresses(data, {"POSTGRES_DSN": dsn, "REDIS_ADDR": "unix:///tmp/my.sock?db=0"})
    assert (tmp_path / "stores.env").stat().st_mode & 0o777 == 0o600
    shell = f". '{tmp_path}/stores.env'; printf %s \"$POSTGRES_DSN\""
    assert subprocess.check_output(["sh", "-c", shell], text=True) == dsn
    monkeypatch.setattr("os.environ", os.environ.copy())
    done = CliRunner().invoke(
        app,
        ["--stores-of", str(tmp_path), "config", "--json"],
        env={"POSTGRES_DSN_FILE": str(tmp_path / "none"), "REDIS_ADDR": "elsewhere:6379"},
    )
    assert done.exit_code == 0, done.output
    values = {setting["name"]: setting["value"] for setting in json.loads(done.stdout)}
    assert values["REDIS_ADDR"] == "unix:///tmp/my.sock?db=0"
    assert values["POSTGRES_DSN"] == dsn.replace("it's", "***")


def test_no_stores_of_a_directory_is_one_line(tmp_path: Path) -> None:
    """It names the option and what is missing; exit code 2."""
    done = CliRunner().invoke(app, ["--stores-of", str(tmp_path), "doctor"])
    assert done.exit_code == 2
    assert done.stderr == (
        f"polyglot: --stores-of: {tmp_path} is the data directory of no `polyglot up` or `demo`\n"
    )


def test_postgres_clients_variables_have_no_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell's own defaults for psql reach no connection."""
    for name in ("PGSSLMODE", "PGHOST", "PGTARGETSESSIONATTRS", "PGPASSWORD"):
        monkeypatch.setenv(name, "wrong")
    CliRunner().invoke(app, ["config"])
    assert [name for name in os.environ if name.startswith("PG")] == []


@pytest.mark.parametrize(
    ("arguments", "environ", "expected"),
    [
        ([], {}, ("127.0.0.1", 8080)),
        ([], {"API_HOST": "0.0.0.0", "API_PORT": "8081"}, ("0.0.0.0", 8081)),
        (["--host", "[::1]"], {"API_HOST": "0.0.0.0"}, ("::1", 8080)),
        (["--port", "1"], {"API_PORT": "tcp://10.96.12.34:8080"}, ("127.0.0.1", 1)),
        ([], {"API_HOST": "tcp://10.96.12.34:8080"}, ("127.0.0.1", 8080)),
    ],
)
def test_where_up_listens(
    arguments: list[str],
    environ: dict[str, str],
    expected: tuple[str, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where its options say, else its settings, else on the loopback."""
    seen: dict[str, object] = {}

    async def up(**more: object) -> None:
        seen.update(more)

    monkeypatch.setattr(supervisor, "up", up)
    result = CliRunner().invoke(app, ["up", *arguments], env=environ)
    assert result.exit_code == 0, result.output
    assert (seen["host"], seen["port"]) == expected
