"""Habits that no linter checks: sizes, names, leftovers, documents that keep up with the code."""

import ast
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from polyglot_persistence.config import load
from scripts import document_api, document_settings

ROOT = Path(__file__).parents[2]
MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
EMPTY_NAMES = {"utils", "util", "common", "manager", "helper", "helpers", "misc"}
LEFTOVERS = re.compile("|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"]))
PROFILES = {"base", "bench", "build", "datasets", "dev", "image", "lock", "servers"}


SLEEPS = {
    "tests/hostile/boundary.py": "a client that sends slowly is what is tested",
    "tests/hostile/attack.py": "clients that pause between their connections",
    "tests/hostile/kinds_connections.py": "clients that send slowly",
    "tests/hostile/kinds_requests.py": "clients that send slowly",
    "tests/hostile/test_harm.py": "a client that pauses between its requests",
    "tests/support/eventually.py": "the pause between two looks, for all tests",
    "tests/support/clients.py": "clients that pause between their requests",
    "tests/support/stand.py": "a reader that looks again and again",
    "tests/contract/test_postgres_cancelled.py": "calls that are cut off after a while",
    "tests/contract/test_postgres_failover.py": "an outage that lasts for a while",
    "tests/support/elasticsearch_stub.py": "a server that takes a moment, so that requests meet",
    "tests/contract/test_http_server.py": "clients that send slowly",
    "tests/contract/test_redis_connection.py": "a process that does not get to its event loop",
    "tests/system/test_hanging_children.py": "a machine that stands still for a while",
    "tests/fault/failing.py": "calls that are late",
    "tests/simulation/processes.py": "a loop whose time is simulated",
    "tests/simulation/test_loop.py": "a loop whose time is simulated",
    "tests/simulation/clients.py": "a loop whose time is simulated",
    "tests/fault/network.py": "replies that are late",
    "tests/fault/faults.py": "faults that last for a while",
    "tests/fault/load.py": "clients that pause between their requests",
    "tests/fault/members.py": "the pause before a process is started again",
    "tests/fault/rounds.py": "the backlog is written down now and then",
    "tests/fault/outage.py": "an outage that lasts, and is watched meanwhile",
}
"""Modules in which time passes, and why: it is what is done there, and nothing is waited for."""


def _modules(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def _functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _pins(profile: str) -> dict[str, set[str]]:
    """Return the versions of each package: several, if they depend on Python's."""
    text = (ROOT / "requirements" / f"{profile}.txt").read_text()
    pins: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", text, re.MULTILINE):
        pins.setdefault(name, set()).add(version)
    return pins


def _name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match
    return re.sub(r"[-_.]+", "-", match[0]).lower()


ALL = _modules("src", "tests", "scripts", "bench")


def test_there_are_modules() -> None:
    """The other tests of this module look at something."""
    assert len(ALL) > 50


def test_modules_are_short() -> None:
    """Who opens a module can read it whole."""
    long = {str(p): n for p in ALL if (n := len(p.read_text().splitlines())) > MODULE_LINES_MAX}
    assert long == {}


def test_functions_are_short() -> None:
    """A function fits on a screen."""
    long = [
        f"{path}:{node.lineno} {node.name}"
        for path in ALL
        for node in _functions(path)
        if (node.end_lineno or 0) - node.lineno >= FUNCTION_LINES_MAX
    ]
    assert long == []


def test_names_say_something() -> None:
    """No module is named after nothing in particular."""
    assert [path for path in ALL if path.stem in EMPTY_NAMES] == []


def test_modules_say_what_lives_in_them() -> None:
    """Each has a docstring."""
    assert [path for path in ALL if not ast.get_docstring(ast.parse(path.read_text()))] == []


def test_tests_say_what_they_show() -> None:
    """Each test has a docstring."""
    silent = [
        f"{path}:{node.lineno} {node.name}"
        for path in _modules("tests")
        for node in _functions(path)
        if node.name.startswith("test_") and not ast.get_docstring(node)
    ]
    assert silent == []


def _is_call(node: ast.AST, *names: str) -> bool:
    """Whether it calls one of these functions of `time` or `asyncio`."""
    return isinstance(node, ast.Call) and ast.unparse(node.func) in names


def test_no_test_sleeps() -> None:
    """It waits for an event with a deadline; a sleep is too long here and too short elsewhere."""
    sleeping = [
        f"{name}:{node.lineno}"
        for path in _modules("tests")
        if (name := str(path.relative_to(ROOT))) not in SLEEPS
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and _is_call(node, "sleep", "asyncio.sleep", "time.sleep")
        and ast.unparse(node.args[0]) != "0"
    ]
    assert sleeping == []
    assert [name for name in SLEEPS if "sleep(" not in (ROOT / name).read_text()] == []


def test_no_test_asserts_how_long_something_took() -> None:
    """That is a property of the machine, and of what else it does."""
    clocks = ("time.monotonic", "time.perf_counter", "time.time", "loop.time")
    measuring = [
        f"{path}:{node.lineno}"
        for path in _modules("tests")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assert)
        for part in ast.walk(node)
        if isinstance(part, ast.BinOp) and _is_call(part.left, *clocks)
    ]
    assert measuring == []


def test_nothing_is_left_over() -> None:
    """What is still to be done is an issue, not a comment."""
    texts = [*ALL, ROOT / "Makefile", *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]
    assert [path for path in texts if LEFTOVERS.search(path.read_text())] == []


@pytest.mark.parametrize("name", [setting.name for setting in load({}).describe()])
def test_every_setting_is_documented(name: str) -> None:
    """The operations page has it."""
    assert f"| `{name}` |" in document_settings.PAGE.read_text()


def test_every_setting_is_used() -> None:
    """One that nothing reads would be a promise without effect."""
    code = "".join(p.read_text() for p in _modules("src") if p.parent.name != "config")
    read = set(re.findall(r"\.([a-z_]+)", code))
    properties = {"anonymous_scopes": "scopes_without_key"}
    names = [setting.name.lower().removeprefix("http_") for setting in load({}).describe()]
    assert [name for name in names if properties.get(name, name) not in read] == []


def test_the_settings_table_is_current() -> None:
    """Defaults, bounds and meanings on the page are those in effect; else run `make docs`."""
    page = document_settings.PAGE.read_text()
    assert page == document_settings.with_table(page)


def test_the_api_reference_is_current() -> None:
    """Each route is on the page as it is described now; else run `make docs`."""
    assert document_api.page() == document_api.PAGE.read_text()


# --- pinned dependencies ---------------------------------------------------------------------


def test_every_dependency_is_pinned() -> None:
    """What `pyproject.toml` asks for is in its profile's file; else run `make lock`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    base = {_name(requirement) for requirement in project["project"]["dependencies"]}
    extras = {
        extra: {_name(requirement) for requirement in requirements} - {"polyglot-persistence"}
        for extra, requirements in project["project"]["optional-dependencies"].items()
    }
    for extra in ("servers", "datasets", "bench", "dev"):
        assert base | extras[extra] <= _pins(extra).keys(), extra
    assert base <= _pins("base").keys()
    assert {_name(r) for r in project["build-system"]["requires"]} <= _pins("build").keys()


def test_every_dependency_of_the_product_is_imported() -> None:
    """One that nothing imports only takes room and has faults of its own to be mended."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = (project["optional-dependencies"][name] for name in ("servers", "datasets", "traces"))
    required = {_name(one) for part in (project["dependencies"], *extras) for one in part}
    modules = {module for path in _modules("src") for module in _imported(path)}
    imported = {
        _name(distribution)
        for module, distributions in packages_distributions().items()
        if module in modules
        for distribution in distributions
    }
    assert required - imported == {"tzdata"}  # the data of `zoneinfo`


def _imported(path: Path) -> Iterator[str]:
    """Yield the top-level packages that a module imports, or looks for to run their programs."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("find_spec"):
            yield ast.literal_eval(node.args[0])


# The settings are read by `config`, by way of `cli.command`. The others prepare or inherit the
# environment of processes that they start, or ask what only the shell knows.
READS_ENVIRONMENT = {
    "cli/command.py": "gives it to `load`, and heeds NO_COLOR",
    "cli/app.py": "changes it for this process and those that it starts",
    "cli/demonstration/demo.py": "whether there is a display",
    "embedded/server.py": "the little that bundled servers inherit",
    "embedded/supervisor.py": "what API and worker inherit",
}


def test_nothing_else_reads_the_environment() -> None:
    """A setting that is read elsewhere would be neither checked nor documented."""
    package = ROOT / "src" / "polyglot_persistence"
    reading = {
        str(path.relative_to(package))
        for path in _modules("src")
        if re.search(r"\bos\.(environ|getenv)\b|import (environ|getenv)\b", path.read_text())
    }
    assert reading == READS_ENVIRONMENT.keys()


OF_BENCH = {
    "polyglot_persistence.adapters.postgres.pool": "rollups as a worker makes them, in slots",
    "polyglot_persistence.adapters.postgres.record": "likewise",
    "polyglot_persistence.adapters.redis": "the key to count dirty orders by every 20 ms",
    "polyglot_persistence.bootstrap.stores": "no command plants drift",
    "polyglot_persistence.cli.demonstration": "the data set as `polyglot load` reads it",
    "polyglot_persistence.config": "no command plants drift",
    "polyglot_persistence.domain.order": "what is persisted or planted without the API",
    "polyglot_persistence.embedded.postgres": "`polyglot up` restarts a worker that is stopped",
    "polyglot_persistence.embedded.valkey": "likewise",
}
"""What of the program's inside the benches import, and why. They run the rest as a user does."""


def test_benches_use_the_program_as_a_user_does() -> None:
    """By commands, HTTP and settings."""
    imported = {
        node.module
        for path in _modules("bench")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("polyglot_persist")
    }
    assert imported == OF_BENCH.keys()


def test_profiles_agree() -> None:
    """They can be installed one after another into one environment."""
    everything = _pins("dev")
    for profile in PROFILES - {"lock"}:
        other = {n: v for n, v in _pins(profile).items() if v != everything.get(n, v)}
        assert other == {}, profile


def test_pins_have_hashes_and_name_no_place() -> None:
    """Every pin is followed by a hash; where a package comes from is the installer's business."""
    assert {path.stem for path in (ROOT / "requirements").iterdir()} == PROFILES
    for profile in PROFILES:
        text = (ROOT / "requirements" / f"{profile}.txt").read_text()
        pins = re.findall(r"^[^\s#].*\\\n    --hash=sha256:", text, re.MULTILINE)
        assert len(pins) == sum(map(len, _pins(profile).values())) > 0
        assert "://" not in text
        assert "--index-url" not in text


# --- ports -----------------------------------------------------------------------------------


def _port_methods() -> Iterator[tuple[str, str]]:
    """Yield each port with the name of each of its methods."""
    for path in _modules("src/polyglot_persistence/ports"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and "Protocol" in map(ast.unparse, node.bases):
                for method in node.body:
                    if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef):
                        yield node.name, method.name


def test_every_method_of_a_port_is_called() -> None:
    """Every adapter would keep up for nothing what only tests call.

    A module calls it if it names the port, or is handed all ports, and uses an attribute so named.
    """
    callers: dict[str, list[str]] = {}
    for path in _modules("src"):
        room = path.relative_to(ROOT / "src/polyglot_persistence").parts[0]
        if room in {"adapters", "ports"}:
            continue
        text = path.read_text()
        named = "*" if room in {"bootstrap", "cli"} else text
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Attribute):
                callers.setdefault(node.attr, []).append(named)
    uncalled = [
        f"{port}.{method}"
        for port, method in _port_methods()
        if not any(named == "*" or port in named for named in callers.get(method, []))
    ]
    assert uncalled == []
    assert len(list(_port_methods())) > 50
