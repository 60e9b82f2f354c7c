"""`polyglot dead-letters` over a flow that answers as the test says."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from click.testing import CliRunner, Result

from polyglot_persistence import telemetry
from polyglot_persistence.bootstrap import operating
from polyglot_persistence.cli import dead_letters as module
from polyglot_persistence.cli.app import app
from polyglot_persistence.domain.dead_letter import (
    DeadLetter,
    DeadLetterRow,
    LetterCounts,
    LetterFilter,
    LetterGroup,
    Stage,
)
from polyglot_persistence.errors import NotFoundError, UnavailableError
from polyglot_persistence.flows.behind.dead_letters import (
    Action,
    CutShortError,
    Handled,
    Operator,
    Outcome,
    Slice,
)

ID = UUID("0199f0c1-7a42-7c31-9d0e-3f5b8c2a1e04")
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
PAYLOAD = b'{"order":{"product_name":"Tea"}}'


def row(number: int, **fields: Any) -> DeadLetterRow:
    letter = DeadLetter(ID, ID, PAYLOAD, "because", Stage.PERSIST, 2)
    return DeadLetterRow(number, letter._replace(**fields), NOW, NOW)


class Flow:
    """A flow of dead letters that remembers what it was asked."""

    def __init__(self) -> None:
        self.rows = [row(number) for number in range(9, 0, -1)]
        self.asked: list[Any] = []
        self.operators: list[Operator] = []
        self.error: Exception | None = None
        self.outcomes: dict[int, Sequence[Handled]] = {}
        self.slices: list[Slice] = []

    async def page(
        self, chosen: LetterFilter, before: int | None, letters_max: int
    ) -> Sequence[DeadLetterRow]:
        self.asked.append(chosen)
        return [one for one in self.rows if before is None or one.id < before][:letters_max]

    async def count(self, chosen: LetterFilter) -> LetterCounts:
        groups = [LetterGroup(Stage.PERSIST, "because", len(self.rows), NOW)] if self.rows else []
        return LetterCounts(len(self.rows), groups)

    async def get(self, letter_id: int) -> DeadLetterRow:
        for one in self.rows:
            if one.id == letter_id:
                return one
        raise NotFoundError(f"there is no dead letter {letter_id}")

    async def act(self, action: Action, letter_id: int, operator: Operator) -> Sequence[Handled]:
        self.asked.append((action, letter_id))
        self.operators.append(operator)
        if letter_id not in self.outcomes:
            raise NotFoundError(f"there is no dead letter {letter_id}")
        return self.outcomes[letter_id]

    async def act_on_slice(
        self, action: Action, chosen: LetterFilter, before: int | None, _operator: Operator
    ) -> Slice:
        self.asked.append((action, chosen, before))
        if self.error is not None and not self.slices:
            raise self.error
        return self.slices.pop(0)


@pytest.fixture
def flow(monkeypatch: pytest.MonkeyPatch) -> Flow:
    """The flow behind the command."""
    flow = Flow()

    @asynccontextmanager
    async def opened(_settings: object) -> AsyncIterator[SimpleNamespace]:
        yield SimpleNamespace(dead_letters=flow)

    monkeypatch.setattr(operating, "opened", opened)
    monkeypatch.setattr(telemetry, "set_up_logging", lambda *_: None)
    return flow


def run(*arguments: str, **options: Any) -> Result:
    return CliRunner().invoke(app, ["dead-letters", *arguments], **options)


def test_the_list_shows_kinds_and_letters(flow: Flow) -> None:
    """Kinds first, then a line for each letter, and how to see more."""
    result = run("list", "--limit", "2")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "LETTERS  STAGE    LAST                  REASON",
        "9        persist  2026-01-31T12:00:00Z  because",
        "",
        "ID  STAGE    ATTEMPTS  LAST                  ORDER                                 REASON",
        f"9   persist  2         2026-01-31T12:00:00Z  {ID}  because",
        f"8   persist  2         2026-01-31T12:00:00Z  {ID}  because",
    ]
    assert result.stderr == "2 of 9; the next ones: --before 8\n"
    assert "\n7 " in run("list", "--before", "8").stdout


def test_the_list_as_json(flow: Flow) -> None:
    """For programs: everything that the list knows, and where to go on."""
    listed = json.loads(run("list", "--json", "--limit", "1").stdout)
    assert (listed["total"], listed["next_before"]) == (9, 9)
    assert listed["groups"] == [
        {"stage": "persist", "reason": "because", "letters": 9, "last_at": str(NOW)}
    ]
    assert listed["letters"] == [
        {
            "id": 9,
            "order_id": str(ID),
            "unit_id": str(ID),
            "stage": "persist",
            "reason": "because",
            "attempts": 2,
            "first_at": NOW.isoformat(),
            "last_at": NOW.isoformat(),
        }
    ]


def test_an_empty_list_says_so(flow: Flow) -> None:
    """On stderr: there is no data."""
    flow.rows = []
    result = run("list")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no dead letters\n")


def test_every_filter_is_understood(flow: Flow) -> None:
    """Moments are in UTC unless they say otherwise."""
    filters = ("--reason", "x", "--stage", "decode", "--order", str(ID), "--unit", str(ID))
    moments = ("--since", "2026-01-31", "--until", "2026-01-31T13:00:00+01:00")
    flow.slices = [Slice([], None)]
    run("list", *filters, *moments)
    run("replay", *filters, *moments)
    chosen = LetterFilter("x", Stage.DECODE, ID, ID, NOW - timedelta(hours=12), NOW)
    assert flow.asked == [chosen, ("replay", chosen, None)]


def test_a_letter_is_shown_whole(flow: Flow) -> None:
    """Each field on a line, and the payload as it came."""
    result = run("show", "9")
    assert "reason    because\n" in result.stdout
    assert result.stdout.endswith(f"payload   {PAYLOAD.decode()}\n")
    whole = json.loads(run("show", "9", "--json").stdout)
    assert (whole["payload"], whole["payload_base64"]) == (PAYLOAD.decode(), None)


def test_nothing_reaches_the_terminal_raw(flow: Flow) -> None:
    """What a stranger wrote cannot move the cursor, and bytes that are no text are base64."""
    flow.rows = [
        row(2, reason="red \x1b[31m\r\n\u2028", payload=b"\x1b[2J \xc2\x9b31m \xc3\xa4"),
        row(1, payload=b"\xff\x00"),
    ]
    listed = run("list")
    assert "red \\x1b[31m\\r\\n\\u2028" in listed.stdout
    assert "\x1b" not in listed.stdout
    assert run("show", "2").stdout.endswith("payload   \\x1b[2J \\x9b31m ä\n")
    assert run("show", "1").stdout.endswith("base64    /wA=\n")
    assert json.loads(run("show", "1", "--json").stdout)["payload_base64"] == "/wA="


def test_a_long_reason_is_cut_in_the_list_only(flow: Flow) -> None:
    """A table stays a table."""
    flow.rows = [row(1, reason="x" * 2_000)]
    assert max(map(len, run("list").stdout.splitlines())) < 220
    assert "x" * 2_000 in run("show", "1").stdout


def test_a_letter_that_is_not_there_is_one_line(flow: Flow) -> None:
    """Exit code 1."""
    result = run("show", "99")
    assert (result.exit_code, result.stderr) == (1, "polyglot: there is no dead letter 99\n")


@pytest.mark.parametrize("action", ["replay", "discard"])
def test_letters_by_id(flow: Flow, action: str) -> None:
    """One after the other; what went with a bulk is not asked for again."""
    flow.outcomes = {
        7: [Handled(7, ID, Outcome.PERSISTED), Handled(6, ID, Outcome.PERSISTED)],
        3: [Handled(3, ID, Outcome.REINDEXED)],
    }
    result = run(action, "7", "6", "3")
    assert flow.asked == [(action, 7), (action, 3)]
    assert (result.exit_code, result.stdout) == (0, "2 persisted, 1 reindexed\n")
    assert {one.trigger for one in flow.operators} == {"command"}
    assert all(one.who for one in flow.operators)


def test_what_is_kept_or_missing_is_exit_code_1(flow: Flow) -> None:
    """With the reasons, and the ids that are not there."""
    flow.outcomes = {7: [Handled(7, ID, Outcome.KEPT, "bad\x1b")], 3: []}
    result = run("replay", "7", "99")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "1 kept",
        "not there (any more): 99",
        "KEPT  ORDER                                 WHY",
        f"7     {ID}  bad\\x1b",
    ]
    assert run("replay", "99").exit_code == 1
    out = json.loads(run("replay", "7", "99", "--json").stdout)
    assert out == {
        "persisted": 0,
        "reindexed": 0,
        "discarded": 0,
        "kept": 1,
        "missing": [99],
        "kept_letters": [{"id": 7, "order_id": str(ID), "detail": "bad\x1b"}],
    }


def test_all_that_match_slice_by_slice(flow: Flow) -> None:
    """Until nothing is left; the kept ones are listed in part and counted in full."""
    flow.slices = [
        Slice([Handled(n, ID, Outcome.DISCARDED) for n in range(1_500)], 500),
        Slice([Handled(n, ID, Outcome.KEPT, "because") for n in range(1_200)], None),
    ]
    result = run("discard", "--all", "--json")
    out = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (out["discarded"], out["kept"]) == (1_500, 1_200)
    assert len(out["kept_letters"]) == module.KEPT_LISTED_MAX
    assert flow.asked == [("discard", LetterFilter(), None), ("discard", LetterFilter(), 500)]


def test_a_long_list_of_kept_letters_is_cut(flow: Flow) -> None:
    """With the number of the rest."""
    flow.slices = [Slice([Handled(n, None, Outcome.KEPT, "because") for n in range(25)], None)]
    lines = run("replay", "--all").stdout.splitlines()
    assert lines[0] == "25 kept"
    assert len(lines) == 1 + 1 + 20 + 1
    assert lines[-1] == "and 5 more"


def test_nothing_that_matches_is_nothing_to_do(flow: Flow) -> None:
    """Exit code 0: what was wanted is the case."""
    flow.rows = []
    result = run("replay", "--all")
    assert (result.exit_code, result.stdout, flow.asked) == (0, "nothing to do\n", [])


@pytest.mark.parametrize(
    "arguments",
    [
        ["replay"],
        ["discard"],
        ["discard", "--all", "--stage", "index"],
        ["discard", "--all", "7"],
        ["discard", "--stage", "index", "7"],
        ["discard", "x"],
        ["discard", "-1"],
        ["discard", "--stage", "none"],
        ["discard", "--since", "yesterday"],
        ["discard", "--since", "0001-01-01T00:00:00+23:59"],
        ["discard", "--reason", ""],
        ["discard", "--order", "7"],
        ["list", "--limit", "0"],
        ["show"],
        ["nonsense"],
    ],
)
def test_wrong_usage_is_2(flow: Flow, arguments: list[str]) -> None:
    """Nothing is done to anything that is not named in one way."""
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr
    assert flow.asked == []


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1), ("\n", 1)])
def test_a_terminal_is_asked(
    flow: Flow, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    """With the number of letters, on stderr; only a clear yes is one."""
    monkeypatch.setattr(module, "_is_asked", lambda: True)
    flow.slices = [Slice([], None)]
    flow.outcomes = {7: [Handled(7, ID, Outcome.DISCARDED)]}
    result = run("discard", "--all", input=answer)
    assert result.exit_code == code
    assert "Discard 9 dead letters?" in result.stderr
    assert len(flow.asked) == (1 if code == 0 else 0)
    result = run("discard", "7", input=answer)
    assert "Discard one dead letter?" in result.stderr
    assert len(flow.asked) == (2 if code == 0 else 0)


def test_yes_is_not_asked(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on a terminal."""
    monkeypatch.setattr(module, "_is_asked", lambda: True)
    flow.slices = [Slice([], None)]
    assert run("discard", "--all", "--yes").exit_code == 0
    assert len(flow.asked) == 1


def test_a_store_that_is_away_is_one_line(flow: Flow) -> None:
    """Exit code 1; what was done stays done."""
    flow.error = UnavailableError("the cache is away")
    result = run("discard", "--all")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.endswith("polyglot: the cache is away\n")


@pytest.mark.parametrize("as_json", [False, True])
def test_what_was_done_before_an_error_is_told(flow: Flow, as_json: bool) -> None:
    """Of the slices before, and of the one that was cut short; the error comes last."""
    flow.slices = [Slice([Handled(9, ID, Outcome.DISCARDED)], 9)]
    flow.error = CutShortError("the cache is away", [Handled(8, ID, Outcome.DISCARDED)])
    result = run("discard", "--all", *["--json"] * as_json)
    assert result.exit_code == 1
    if as_json:
        assert json.loads(result.stdout)["discarded"] == 2
    else:
        assert result.stdout == "2 discarded\n"
    assert "cut short; what was done stays done" in result.stderr
    assert result.stderr.endswith("polyglot: the cache is away\n")


def test_ctrl_c_is_130(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a word on what it means."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(flow, "act_on_slice", interrupted)
    result = run("replay", "--all")
    assert result.exit_code == 130
    assert "what was done stays done" in result.stderr
