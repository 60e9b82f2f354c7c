"""The routes of dead letters over a flow that answers as the test says."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import httpx2
import pytest
import pytest_asyncio

from polyglot_persistence.api.app import build_app
from polyglot_persistence.api.dead_letters.handlers import parse_choice
from polyglot_persistence.api.dead_letters.schemas import KEPT_LISTED_MAX
from polyglot_persistence.domain.dead_letter import (
    DeadLetter,
    DeadLetterRow,
    LetterCounts,
    LetterFilter,
    LetterGroup,
    Stage,
)
from polyglot_persistence.errors import (
    InvalidError,
    MalformedError,
    NotFoundError,
    PolyglotError,
    UnavailableError,
    UnknownOutcomeError,
    Violation,
)
from polyglot_persistence.flows.behind.dead_letters import (
    Action,
    CutShortError,
    Handled,
    Operator,
    Outcome,
    Slice,
)
from tests.support.scripted import FakeClock
from tests.support.stub_flows import ID, LIMITS, NOW, OPEN, StubFlows

PATH = "/api/admin/dead-letters"
UNKNOWN = "/problems#unknown-outcome"
ROWS = [
    DeadLetterRow(number, DeadLetter(ID, ID, b"{}", "because", Stage.PERSIST, 2), NOW, NOW)
    for number in range(9, 0, -1)
]


class Letters:
    """A flow of dead letters that remembers what it was asked."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.error: Exception | None = None
        self.row = ROWS[0]
        self.asked: list[Any] = []
        self.handled: list[Handled] = []
        self.slices: list[Slice | Exception] = []
        self.slice_seconds = 0.0

    def _ask(self, *question: Any) -> None:
        self.asked.append(question)
        if self.error is not None:
            raise self.error

    async def page(
        self, chosen: LetterFilter, before: int | None, letters_max: int
    ) -> Sequence[DeadLetterRow]:
        self._ask(chosen)
        return [row for row in ROWS if before is None or row.id < before][:letters_max]

    async def count(self, chosen: LetterFilter) -> LetterCounts:
        self._ask(chosen)
        return LetterCounts(9, [LetterGroup(Stage.PERSIST, "because", 9, NOW)])

    async def get(self, letter_id: int) -> DeadLetterRow:
        self._ask(letter_id)
        return self.row

    async def act(self, action: Action, letter_id: int, operator: Operator) -> Sequence[Handled]:
        self._ask(action, letter_id, operator)
        return self.handled

    async def act_on_slice(
        self, action: Action, chosen: LetterFilter, before: int | None, _operator: Operator
    ) -> Slice:
        self._ask(action, chosen, before)
        self.clock.advance(self.slice_seconds)
        part = self.slices.pop(0)
        if isinstance(part, Exception):
            raise part
        return part


class Setup:
    """The application over stub flows, and a client of it."""

    def __init__(self) -> None:
        clock = FakeClock()
        self.letters = Letters(clock)
        self.stopping = asyncio.Event()
        flows = StubFlows().as_flows()._replace(letters=cast("Any", self.letters))
        app = build_app(flows, LIMITS, clock=clock, stopping=self.stopping, access=OPEN)
        self.client = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app, client=("10.1.2.3", 1234)),
            base_url="http://localhost",
        )


@pytest_asyncio.fixture
async def setup() -> AsyncIterator[Setup]:
    """A fresh application."""
    setup = Setup()
    async with setup.client:
        yield setup


async def test_the_first_page_counts_and_the_next_ones_follow(setup: Setup) -> None:
    """Every letter once, the filter kept in the links; no payload in the list."""
    path = f"{PATH}?stage=persist&reason=%26because&limit=4"
    walked = []
    pages = []
    while path:
        answer = await setup.client.get(path)
        assert answer.status_code == 200
        pages.append(answer.json())
        walked += answer.json()["letters"]
        path = answer.json().get("next")
    assert [letter["id"] for letter in walked] == [row.id for row in ROWS]
    assert walked[0] == {
        "id": 9,
        "order_id": str(ID),
        "unit_id": str(ID),
        "stage": "persist",
        "reason": "because",
        "attempts": 2,
        "first_at": "2026-01-31T12:00:00Z",
        "last_at": "2026-01-31T12:00:00Z",
    }
    assert pages[0]["total"] == 9
    assert [group["letters"] for group in pages[0]["groups"]] == [9]
    assert all("total" not in page and "groups" not in page for page in pages[1:])
    assert pages[0]["next_cursor"] == "6"
    assert {asked[0] for asked in setup.letters.asked} == {
        LetterFilter(reason="&because", stage=Stage.PERSIST)
    }


async def test_every_filter_can_be_asked_for(setup: Setup) -> None:
    """All of them narrow both the list and the counts."""
    answer = await setup.client.get(
        PATH,
        params={
            "reason": "x",
            "stage": "decode",
            "order_id": str(ID),
            "unit_id": str(ID).upper(),
            "since": "2026-01-31T12:00:00Z",
            "until": "2026-01-31T14:00:00+01:00",
        },
    )
    assert answer.status_code == 200
    chosen = LetterFilter("x", Stage.DECODE, ID, ID, NOW, datetime(2026, 1, 31, 13, tzinfo=UTC))
    assert setup.letters.asked == [(chosen,), (chosen,)]


@pytest.mark.parametrize(
    "query",
    [
        "stage=none",
        "stage=",
        "order_id=1",
        "unit_id=x",
        "since=yesterday",
        "until=2026-01-31T12:00:00",
        "since=0001-01-01T00:00:00%2B23:59",
        "reason=",
        "reason=%00",
        f"reason={'x' * 201}",
        "cursor=x",
        "cursor=-1",
        f"cursor={'9' * 19}",
        "limit=0",
    ],
)
async def test_a_query_that_cannot_be_read_is_400(setup: Setup, query: str) -> None:
    """The detail names the parameter; the stores are not asked."""
    answer = await setup.client.get(f"{PATH}?{query}")
    assert answer.status_code == 400
    assert query.partition("=")[0] in answer.json()["detail"]
    assert setup.letters.asked == []


@pytest.mark.parametrize(
    ("payload", "text", "encoded"),
    [(b'{"a": "\xc3\xa4"}', '{"a": "ä"}', None), (b"\xff\x00", None, "/wA=")],
)
async def test_one_letter_has_its_payload(
    setup: Setup, payload: bytes, text: str | None, encoded: str | None
) -> None:
    """As text where it is text, else in base64."""
    setup.letters.row = ROWS[0]._replace(letter=ROWS[0].letter._replace(payload=payload))
    answer = await setup.client.get(f"{PATH}/17")
    assert answer.status_code == 200
    assert (answer.json()["payload"], answer.json()["payload_base64"]) == (text, encoded)
    assert setup.letters.asked == [(17,)]


@pytest.mark.parametrize("action", ["replay", "discard"])
async def test_acting_on_one_letter(setup: Setup, action: str) -> None:
    """The outcomes of its whole unit are counted, what was kept has its reason."""
    other = UUID(int=1)
    setup.letters.handled = [
        Handled(17, ID, Outcome.PERSISTED),
        Handled(18, other, Outcome.KEPT, "because"),
        Handled(19, None, Outcome.DISCARDED),
        Handled(20, ID, Outcome.REINDEXED),
    ]
    answer = await setup.client.post(f"{PATH}/17/{action}")
    assert answer.status_code == 200
    assert answer.json() == {
        "persisted": 1,
        "reindexed": 1,
        "discarded": 1,
        "kept": 1,
        "kept_letters": [{"id": 18, "order_id": str(other), "detail": "because"}],
        "next_cursor": None,
    }
    assert setup.letters.asked == [(action, 17, Operator("request", "10.1.2.3"))]


@pytest.mark.parametrize("path", ["x", "-1", "1.0", "9" * 19, "\u0661"])
async def test_an_id_that_is_none_is_400(setup: Setup, path: str) -> None:
    """Whatever is asked of it."""
    assert (await setup.client.get(f"{PATH}/{path}")).status_code == 400
    assert (await setup.client.post(f"{PATH}/{path}/replay")).status_code == 400
    assert (await setup.client.post(f"{PATH}/{path}/discard")).status_code == 400
    assert setup.letters.asked == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotFoundError("there is no dead letter 17"), 404),
        (UnavailableError("away"), 503),
        (UnknownOutcomeError("lost"), 504),
    ],
)
async def test_failures_are_problems(setup: Setup, error: PolyglotError, status: int) -> None:
    """Of reading, of acting on one, and of acting on many."""
    setup.letters.error = error
    answers = [
        await setup.client.get(f"{PATH}/17"),
        await setup.client.post(f"{PATH}/17/replay"),
        await setup.client.post(f"{PATH}/discard", json={"all": True}),
    ]
    assert [answer.status_code for answer in answers] == [status] * 3
    assert {answer.headers["content-type"] for answer in answers} == {"application/problem+json"}


@pytest.mark.parametrize("error", [UnavailableError("away"), UnknownOutcomeError("lost")])
async def test_a_failure_after_a_slice_is_504_with_what_is_done(
    setup: Setup, error: PolyglotError
) -> None:
    """A 503 would say that nothing was; the cursor leads to the slice that failed."""
    setup.letters.slices = [Slice([Handled(9, ID, Outcome.DISCARDED)], 9), error]
    answer = await setup.client.post(f"{PATH}/discard", json={"all": True})
    out = answer.json()
    assert (answer.status_code, out["status"], out["type"]) == (504, 504, UNKNOWN)
    assert "retry-after" not in answer.headers
    assert (out["done"]["discarded"], out["done"]["next_cursor"]) == (1, "9")


async def test_a_slice_that_was_cut_short_is_504_with_what_is_done(setup: Setup) -> None:
    """What the slice did counts with what came before; from its beginning it is done again."""
    setup.letters.slices = [
        Slice([Handled(9, ID, Outcome.PERSISTED)], 9),
        CutShortError("away", [Handled(8, ID, Outcome.PERSISTED)]),
    ]
    answer = await setup.client.post(f"{PATH}/replay", json={"all": True})
    assert answer.status_code == 504
    assert (answer.json()["done"]["persisted"], answer.json()["done"]["next_cursor"]) == (2, "9")
    setup.letters.slices = [CutShortError("away", [])]
    answer = await setup.client.post(f"{PATH}/replay", json={"all": True})
    assert (answer.status_code, answer.json()["done"]["next_cursor"]) == (504, None)
    setup.letters.slices = [CutShortError("away", [])]
    answer = await setup.client.post(f"{PATH}/replay", json={"all": True, "cursor": "7"})
    assert (answer.status_code, answer.json()["done"]["next_cursor"]) == (504, "7")


async def test_one_that_was_cut_short_is_504_with_what_is_done(setup: Setup) -> None:
    """Its unit may be handled in part only by what is known."""
    setup.letters.error = CutShortError("away", [Handled(17, ID, Outcome.REINDEXED)])
    answer = await setup.client.post(f"{PATH}/17/replay")
    out = answer.json()
    assert (answer.status_code, out["type"], out["done"]["reindexed"]) == (504, UNKNOWN, 1)
    assert out["instance"] == f"{PATH}/17/replay"


@pytest.mark.parametrize("action", ["replay", "discard"])
async def test_all_that_match_slice_by_slice(setup: Setup, action: str) -> None:
    """One request goes on until nothing is left, and sums up."""
    setup.letters.slices = [
        Slice([Handled(9, ID, Outcome.DISCARDED)], 9),
        Slice([Handled(8, ID, Outcome.KEPT, "because")], 8),
        Slice([Handled(7, ID, Outcome.DISCARDED)], None),
    ]
    answer = await setup.client.post(f"{PATH}/{action}", json={"stage": "persist"})
    out = answer.json()
    assert (out["discarded"], out["kept"], out["next_cursor"]) == (2, 1, None)
    chosen = LetterFilter(stage=Stage.PERSIST)
    assert setup.letters.asked == [
        (action, chosen, None),
        (action, chosen, 9),
        (action, chosen, 8),
    ]


async def test_a_long_action_ends_in_time_and_is_gone_on_with(setup: Setup) -> None:
    """The cursor in the answer is where the next request begins."""
    setup.letters.slice_seconds = 4.0
    setup.letters.slices = [Slice([], before) for before in (90, 80, 70, 60)]
    answer = await setup.client.post(f"{PATH}/replay", json={"all": True})
    assert answer.json()["next_cursor"] == "70"
    setup.stopping.set()
    choice = {"all": True, "cursor": answer.json()["next_cursor"]}
    answer = await setup.client.post(f"{PATH}/replay", json=choice)
    assert answer.json()["next_cursor"] == "60"
    assert setup.letters.asked[-1] == ("replay", LetterFilter(), 70)


async def test_the_list_of_kept_letters_is_bounded(setup: Setup) -> None:
    """The count is not."""
    kept = [Handled(number, ID, Outcome.KEPT, "because") for number in range(500)]
    setup.letters.slices = [Slice(kept, None)]
    out = (await setup.client.post(f"{PATH}/replay", json={"all": True})).json()
    assert (out["kept"], len(out["kept_letters"])) == (500, KEPT_LISTED_MAX)


async def test_a_bulk_action_needs_json(setup: Setup) -> None:
    """So that no page of another site can send it without being asked."""
    answer = await setup.client.post(f"{PATH}/discard", content=b'{"all": true}')
    assert answer.status_code == 415
    assert setup.letters.asked == []


@pytest.mark.parametrize(
    ("choice", "pointer"),
    [
        ({}, ""),
        ([], ""),
        ({"all": False}, ""),
        ({"all": "yes"}, "/all"),
        ({"cursor": "17"}, ""),
        ({"all": True, "stage": "index"}, "/all"),
        ({"stage": "none"}, "/stage"),
        ({"order_id": 17}, "/order_id"),
        ({"since": "2026-01-31T12:00:00"}, "/since"),
        ({"until": "9999-12-31T23:59:59-23:59"}, "/until"),
        ({"reason": ""}, "/reason"),
        ({"reason": "\x00"}, "/reason"),
        ({"reason": "x" * 201}, "/reason"),
        ({"all": True, "cursor": "x"}, "/cursor"),
        ({"al": True}, "/al"),
        ({"all": True, "a/l~": 1}, "/a~1l~0"),
        ({"reason": 17}, "/reason"),
        ({"since": "yesterday"}, "/since"),
    ],
    ids=str,
)
async def test_a_choice_must_name_something(setup: Setup, choice: object, pointer: str) -> None:
    """422 with the field; nothing is done to anything."""
    answer = await setup.client.post(f"{PATH}/discard", json=choice)
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert setup.letters.asked == []


def test_every_broken_rule_of_a_choice_is_named_at_once() -> None:
    """In the words of the query string, without what is for addresses only."""
    body = (
        b'{"stage": "none", "order_id": 1, "since": "x", "all": 2, "reason": "", "stage": "index", '
        b'"\\ud800": 1}'
    )
    with pytest.raises(InvalidError) as refused:
        parse_choice(body)
    assert {one.pointer: one.detail for one in refused.value.violations} == {
        "/stage": "must be decode, persist or index",
        "/order_id": "must be a UUID",
        "/since": "must be a date, or a moment in RFC 3339 form with a time zone",
        "/all": "must be true or false",
        "/reason": "must be a text of 1 to 200 characters",
        "/\\ud800": "is an unknown field",
    }
    assert Violation("/stage", "is given twice") in refused.value.violations


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b'{"reason": "\\ud800"}'])
def test_a_choice_that_is_no_json_is_malformed(body: bytes) -> None:
    """Whatever the bytes are."""
    with pytest.raises((MalformedError, InvalidError)):
        parse_choice(body)


def test_a_choice_can_name_everything() -> None:
    """Each filter, and where to go on."""
    choice = {
        "reason": "x",
        "stage": "index",
        "order_id": str(ID),
        "unit_id": str(ID),
        "since": "2026-01-31T12:00:00Z",
        "until": "2026-01-31T12:00:00Z",
        "cursor": "17",
    }
    assert parse_choice(json.dumps(choice).encode()) == (
        LetterFilter("x", Stage.INDEX, ID, ID, NOW, NOW),
        17,
    )
