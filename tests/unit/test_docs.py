"""The documents keep up with the code (metrics, routes, problems, log actions), and read well."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from polyglot_persistence import __version__
from polyglot_persistence.api.routes import ROUTES
from polyglot_persistence.api.web.problems import KINDS, type_uri
from polyglot_persistence.telemetry import REGISTRY
from tests.support.documents import PAGES, ROOT, alike, blocks, examples, without_code

OPERATIONS = (ROOT / "docs" / "ops.md").read_text()
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text()
PROSE_CHARACTERS_MAX = 120

_LINK = re.compile(r"\]\(([^)\s]+)\)|\b(?:src|srcset)=\"([^\"\s]+)\"")
_ACTION = re.compile(r"_log\.(?:warning|error|exception)\(\s*\"(\w+)\"")
_CELL_EDGE = re.compile(r"(?<!\\)\|")
_MERMAID_KINDS = ("flowchart ", "sequenceDiagram", "stateDiagram-v2")


@pytest.mark.parametrize("metric", sorted(metric.name for metric in REGISTRY.collect()))
def test_every_metric_is_documented(metric: str) -> None:
    """The operations page has its name as Prometheus shows it, with the suffix of its kind."""
    assert re.search(rf"^\| `{metric}(_total|_info)?` \|", OPERATIONS, re.MULTILINE)


def test_no_other_metric_is_documented() -> None:
    """A metric that is gone is gone from the page, too."""
    section = OPERATIONS.split("\n## Metrics\n")[1].split("\n## ")[0]
    documented = {
        name.removesuffix("_total").removesuffix("_info")
        for name in re.findall(r"^\| `(\w+)`", section, re.MULTILINE)
    }
    assert documented == {metric.name for metric in REGISTRY.collect()}


def test_every_route_is_documented() -> None:
    """The operations page has each method and path of the table of routes."""
    missing = [f"{route.method} {route.path}" for route in ROUTES if not _in_table(route)]
    assert missing == []


def _in_table(route: Any) -> bool:
    pattern = rf"^\| .*`{route.method} {re.escape(route.path)}`"
    return re.search(pattern, OPERATIONS, re.MULTILINE) is not None


def test_every_problem_is_documented() -> None:
    """The operations page has each problem's type with its status, and no other one."""
    documented = set(re.findall(r"^\| `(/problems#[\w-]+)` \| (\d+) \|", OPERATIONS, re.MULTILINE))
    assert documented == {(type_uri(kind), str(kind.status)) for kind in KINDS}


def test_every_warning_and_error_is_documented() -> None:
    """The operations page has the action of each log line that somebody may be woken by."""
    sources = (ROOT / "src").rglob("*.py")
    actions = {action for path in sources for action in _ACTION.findall(path.read_text())}
    section = OPERATIONS.split("\n## Logs\n")[1].split("\n## ")[0]
    documented = set(re.findall(r"`(\w+)`", section))
    assert len(actions) > 10
    assert sorted(actions - documented) == []


def test_every_package_is_in_the_code_map() -> None:
    """The architecture names each package and module at the top of the source."""
    package = ROOT / "src" / "polyglot_persistence"
    names = [path.name for path in package.iterdir() if not path.name.startswith("_")]
    names = [name for name in names if name.endswith(".py") or "." not in name]
    assert [name for name in names if f"`{name}" not in ARCHITECTURE] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Each link to a file of the project or to a heading in one resolves, and each picture."""
    broken = []
    for found in _LINK.finditer("\n".join(without_code(page))):
        link = found[1] or found[2]
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    assert broken == []


def _anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = [line.lstrip("#").strip() for line in without_code(page) if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_prose_fits_a_screen(page: Path) -> None:
    """Lines of prose are wrapped; tables, links and code are as long as they have to be."""
    long = [
        f"{page.name}:{number}"
        for number, line in enumerate(without_code(page), 1)
        if len(line) > PROSE_CHARACTERS_MAX and not line.startswith("|")
    ]
    assert long == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_are_whole(page: Path) -> None:
    """Each row of a table has as many cells as its head."""
    cells = 0
    for number, line in enumerate(without_code(page), 1):
        if not line.startswith("|"):
            cells = 0
            continue
        found = len(_CELL_EDGE.findall(line))
        assert found == (cells or found), f"{page.name}:{number}"
        cells = found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_says_what_it_is(page: Path) -> None:
    """Each block has a language, and a command that no test runs has its reason."""
    for block in blocks(page):
        assert block.language, block.place
        if block.info:
            assert re.fullmatch(r"no-test: \S.{10,}", block.info), block.place


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pictures_are_well_formed(page: Path) -> None:
    """Each Mermaid picture is of a known kind, with its brackets, quotes and blocks closed."""
    for block in blocks(page):
        if block.language != "mermaid":
            continue
        assert block.text.startswith(_MERMAID_KINDS), block.place
        assert "\\n" not in block.text, f"{block.place}: write <br/>"
        unquoted = re.sub(r'"[^"\n]*"', "", block.text)
        assert '"' not in unquoted, block.place
        for opened, closed in ("()", "[]", "{}"):
            assert unquoted.count(opened) == unquoted.count(closed), block.place
        begun = re.findall(
            r"^\s*(subgraph|alt|par|loop|opt|state .*\{)(?: |$)", block.text, re.MULTILINE
        )
        ended = re.findall(r"^\s*(end|\})$", block.text, re.MULTILINE)
        assert len(begun) == len(ended), block.place


def test_the_glossary_has_the_words() -> None:
    """Each word that the code and the documents use with a meaning of their own is explained."""
    words = {
        "write-behind", "dirty", "clean", "accept", "persist", "index", "backfill", "coalesce",
        "system of record", "projection", "materialized view", "refresh", "staleness",
        "publisher confirm", "delivery", "ack", "nack", "redelivery", "prefetch", "dead letter",
        "replay", "at-least-once", "idempotent", "idempotency key", "watermark", "lag", "sweep",
        "repair", "outbox", "cold cache", "epoch", "drain", "stop", "unit", "group commit",
    }  # fmt: skip
    heads = " ".join(re.findall(r"\*\*(.+?)\*\*", GLOSSARY)).lower()
    assert [word for word in sorted(words) if word not in heads] == []


def test_pages_have_examples() -> None:
    """What the system test runs."""
    assert {page.name for page in PAGES if examples(page)} >= {
        "README.md",
        "guide.md",
        "api.md",
        "ops.md",
    }


@pytest.mark.parametrize(
    ("documented", "actual", "language", "expected"),
    [
        ('{"amount": 1.50}', '{"amount":1.5}', "json", True),
        ('{"amount": 1.50}', '{"amount":1.51}', "json", False),
        ('{"a": 1}', '{"a": 1, "b": 2}', "json", False),
        ('{"a": 1}\n{"b": 2}', '{"a":1}{"b":2}', "json", True),
        ('{"a": 1}', "no JSON", "json", False),
        ('{"created_at": "2026-01-01"}', '{"created_at": null}', "json", False),
        (
            '{"id": "0199f0c1-7a42-7c31-9d0e-3f5b8c2a1e04"}',
            '{"id": "8e03978e-40d5-43dd-bc93-6894a57f9324"}',
            "json",
            True,
        ),
        ("x-cache: HIT  ", "x-cache: HIT\r\n", "text", True),
        ("x-cache: HIT", "x-cache: MISS", "text", False),
        ("as of 2026-01-31T12:00:00Z", "as of 2025-12-24T00:00:01.5+00:00", "text", True),
    ],
)
def test_answers_are_compared(documented: str, actual: str, language: str, expected: bool) -> None:
    """What differs between runs does not count, and whatever else differs does."""
    assert alike(documented, actual, language) is expected


def test_the_newest_release_in_the_changelog_is_this_version() -> None:
    """Its number stands once in the code, and its changes are listed under it."""
    changelog = (ROOT / "CHANGELOG.md").read_text()
    releases = re.findall(r"^## \[([\d.]+)\] - \d{4}-\d\d-\d\d$", changelog, re.MULTILINE)
    assert releases[0] == __version__
    assert releases == sorted(releases, key=lambda one: [*map(int, one.split("."))], reverse=True)


def test_each_place_that_answers_a_question_exists() -> None:
    """The table names a file and what to look for in it."""
    table = ARCHITECTURE.partition("### Where is ...?")[2].partition("\n## ")[0]
    named = re.findall(r"`([\w/]+\.(?:py|sql))` `(\w+)`", table)
    assert len(named) >= 7
    for path, name in named:
        source = (ROOT / "src" / "polyglot_persistence" / path).read_text()
        defined = rf"^ *(?:(?:class|def|async def|-- name:) )?{name}\b"
        assert re.search(defined, source, re.MULTILINE), f"{path} has no {name}"


def test_a_field_of_an_order_is_added_in_the_files_that_are_listed() -> None:
    """No other module puts an order together or takes one apart, but for the hits of a search."""
    table = ARCHITECTURE.partition("### Adding a field")[2].partition("\n## ")[0]
    listed = set(re.findall(r"^\| `([\w/]+\.(?:py|sql))`", table, re.MULTILINE))
    sources = ROOT / "src" / "polyglot_persistence"
    found = {
        str(path.relative_to(sources))
        for path in sources.rglob("*.py")
        if _names_all_of_an_order(ast.parse(path.read_text()))
    }
    assert found - {"api/search/handlers.py"} == {one for one in listed if one.endswith(".py")}
    assert len(listed) == 8


def _names_all_of_an_order(module: ast.Module) -> bool:
    """Whether a module names name and amount as attributes, or calls `Order` itself."""
    nodes = list(ast.walk(module))
    named = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    called = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
    return {"product_name", "amount"} <= named or "Order" in called
