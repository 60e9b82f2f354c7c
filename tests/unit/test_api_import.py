"""The import: totals, errors by line, waiting out a refusal, and how far it got."""

import asyncio
import json
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from polyglot_persistence.api.orders.importing import ERRORS_MAX
from polyglot_persistence.api.orders.schemas import FIRST_LINE_MAX
from polyglot_persistence.api.web import bodies
from polyglot_persistence.domain.access import ApiKey, Scope, digest_of
from polyglot_persistence.domain.order import derived_id, new_id
from polyglot_persistence.errors import (
    ConflictError,
    PolyglotError,
    UnavailableError,
    UnknownOutcomeError,
)
from polyglot_persistence.flows.intake.accept import LineOutcome
from tests.support.import_route import (
    CHUNK,
    FULL,
    KEY,
    LOST,
    REPORT,
    Setup,
    order,
    outcomes_by_name,
)

LINES = st.lists(
    st.sampled_from(
        [
            b'{"product_name": "Coffee", "amount": 3.5}',
            b'{"product_name": "Coffee", "amount": 3.5}\r',
            b'{"product_name": "Tea", "amount": 2}',
            b'{"product_name": "", "amount": 2}',
            b'{"product_name": "Tea\xe2\x80\xa8", "amount": 2}',
            b'{"product_name": "Rum", "amount": 9, "id": "0199f0c1-7a42-7c31-9d0e-3f5b8c2a1e04"}',
            b"x" * 300,
            b"[1]",
            b'\xef\xbb\xbf{"product_name": "Tea", "amount": 2}\r',
            b"\xef\xbb\xbf",
            b"\xff\xfe\x00",
            b"\x0b",
            b" \r",
            b"",
        ]
    ),
    max_size=12,
)


@pytest_asyncio.fixture
async def setup() -> AsyncIterator[Setup]:
    """A fresh import."""
    setup = Setup()
    async with setup.client:
        yield setup


async def test_valid_lines_are_accepted_and_others_reported_by_number(setup: Setup) -> None:
    """One bad line takes no neighbour along, and blank lines count."""
    status, out = await setup.send(
        *(order("a"), "", order(""), "{", order("x" * 300), order("b"), "", order("c")),
        query=REPORT,
    )
    assert status == 200
    assert [line.content[0] for line in setup.accepting.stored.values()] == ["a", "b", "c"]
    assert out == {
        "accepted": 3,
        "unchanged": 0,
        "rejected": 3,
        "errors": [
            {"line": 3, "detail": "/product_name: must not be empty"},
            {
                "line": 4,
                "detail": "not valid JSON: a field's name in double quotes is missing (line 1, "
                "column 2)",
            },
            {"line": 5, "detail": "is longer than 200 bytes"},
        ],
        "errors_omitted": 0,
    }


async def test_an_empty_body_is_an_import_of_nothing(setup: Setup) -> None:
    """No line, no order, no error."""
    status, out = await setup.send()
    assert (status, out["accepted"], out["rejected"]) == (200, 0, 0)
    assert setup.accepting.chunks == []


async def test_lines_with_an_id_change_nothing_the_second_time(setup: Setup) -> None:
    """The same line is unchanged; another one under its id is reported with the id."""
    given = new_id()
    await setup.send(order("a", id=str(given)))
    status, out = await setup.send(order("a", id=str(given)), order("b", id=str(given)))
    assert status == 422
    assert (out["unchanged"], out["rejected"]) == (1, 1)
    assert out["lines_rejected"] == [{"line": 2, "detail": "other content", "id": str(given)}]


async def test_a_key_gives_every_line_without_an_id_its_own(setup: Setup) -> None:
    """The id follows from key and line number, so that a retry of the request changes nothing."""
    key = {"idempotency-key": '"abc"'}
    lines = [order("a"), "", order("b", id=str(new_id())), order("c")]
    _, first = await setup.send(*lines, headers=key)
    _, second = await setup.send(*lines, headers=key)
    assert (first["accepted"], second["accepted"], second["unchanged"]) == (3, 0, 3)
    assert {derived_id("", "abc", 1), derived_id("", "abc", 4)} < setup.accepting.stored.keys()


async def test_it_is_accepted_in_chunks(setup: Setup) -> None:
    """However long the stream, the flow is given a bounded number of lines."""
    await setup.send(*[order(str(n)) for n in range(3 * CHUNK + 1)])
    assert [len(chunk) for chunk in setup.accepting.chunks] == [CHUNK] * 3 + [1]


async def test_errors_are_listed_up_to_a_bound_and_counted_beyond(setup: Setup) -> None:
    """A file of a million bad lines has an answer of bounded length."""
    _, out = await setup.send(*["x"] * (ERRORS_MAX + 7))
    assert (len(out["lines_rejected"]), out["lines_rejected_omitted"], out["rejected"]) == (
        ERRORS_MAX,
        7,
        ERRORS_MAX + 7,
    )


async def test_a_refusal_is_waited_out(setup: Setup) -> None:
    """Lines that are refused for a while are offered again, and only those."""
    until = setup.clock.monotonic() + 30
    setup.accepting.answer = lambda line: (
        UnavailableError("full")
        if line.content[0] == "b" and setup.clock.monotonic() < until
        else None
    )
    status, out = await setup.send(order("a"), order("b"), order("c"))
    assert (status, out["accepted"]) == (200, 3)
    assert [line.content[0] for line in setup.accepting.chunks[-1]] == ["b"]
    assert len(setup.accepting.chunks) < 60


@pytest.mark.parametrize(
    ("error", "status"),
    [(UnavailableError("full", retry_after_seconds=7), 503), (UnknownOutcomeError("lost"), 504)],
)
async def test_a_refusal_that_lasts_ends_it_with_how_far_it_got(
    setup: Setup, error: PolyglotError, status: int
) -> None:
    """The answer says what was done, and with which line to go on."""
    refused = {"e", "f"}
    setup.accepting.answer = lambda line: error if line.content[0] in refused else None
    setup.accepting._accept = (  # type: ignore[method-assign]  # the outcome stays unknown
        lambda line: LineOutcome(line.id or new_id(), error=setup.accepting.answer(line))
    )
    lines = [order("a"), order(""), order("b"), order("c")]
    answered, out = await setup.send(*lines, *[order(name) for name in "defgh"])
    assert answered == status
    assert out["accepted"] == 4
    assert out["rejected"] == 1
    assert out["first_line_not_accepted"] == 6
    assert out["lines_not_accepted"] == [6, 7]
    assert out["lines_read"] == 7
    assert (out["status"], out["instance"]) == (status, "/import")


async def test_an_unknown_outcome_is_tried_again_under_the_same_id(setup: Setup) -> None:
    """A line without an id that was stored, with the answer lost, does not become two orders."""
    lost = iter([UnknownOutcomeError("lost")])
    setup.accepting.answer = lambda _line: next(lost, None)
    status, out = await setup.send(order("a"))
    assert (status, out["accepted"], out["unchanged"]) == (200, 1, 0)
    assert len(setup.accepting.stored) == 1


async def test_it_ends_when_the_server_stops(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read is accepted; the answer says with which line to go on."""
    monkeypatch.setattr(bodies, "DISCARD_SECONDS_MAX", 0.01)
    status, out = await setup.cut(
        (json.dumps(order("a")) + "\n" + json.dumps(order("b")) + '\n{"prod').encode()
    )
    assert status == 503
    assert (out["accepted"], out["first_line_not_accepted"]) == (2, 3)
    assert "all lines after line 2" in out["detail"]


async def test_a_slow_sender_is_told_so_and_how_to_resume(setup: Setup) -> None:
    """408, with what was done."""
    status, out = await setup.cut((json.dumps(order("a")) + "\n").encode(), KEY, late=True)
    assert status == 408
    assert (out["accepted"], out["first_line_not_accepted"]) == (1, 2)
    assert "the body arrived too slowly; " in out["detail"]
    assert "?first_line=2" in out["detail"]


async def test_another_content_type_is_refused(setup: Setup) -> None:
    """JSON is not newline-delimited JSON."""
    answer = await setup.client.post("/import", json=order("a"))
    assert answer.status_code == 415
    assert setup.accepting.stored == {}


async def test_one_unknown_attempt_makes_the_answer_504(setup: Setup) -> None:
    """Refused at last, the line may be stored by the first attempt: 503 would be a lie."""
    outcomes_by_name(setup, b=[LOST, FULL], c=[FULL], e=[FULL, LOST, FULL])
    status, out = await setup.send(order("a"), order("b"), order("c"))
    assert status == 504
    assert (out["type"], out["status"]) == ("/problems#unknown-outcome", 504)
    assert out["lines_not_accepted"] == [2, 3]
    assert out["lines_unknown"] == [2]
    assert (out["accepted"], out["first_line_not_accepted"], out["lines_read"]) == (1, 2, 3)
    assert "it is unknown whether line 2 is stored" in out["detail"]
    assert "may become a second order" in out["detail"]
    status, out = await setup.send(order("d"), order("e"))
    assert (status, out["lines_unknown"]) == (504, [2])


async def test_a_line_that_was_only_refused_is_503(setup: Setup) -> None:
    """However often."""
    outcomes_by_name(setup, b=[FULL])
    status, out = await setup.send(order("a"), order("b"))
    assert (status, out["lines_not_accepted"]) == (503, [2])
    assert "lines_unknown" not in out
    assert "second order" not in out["detail"]


@pytest.mark.parametrize("given", [False, True])
async def test_a_stop_after_an_unknown_attempt_is_504(setup: Setup, given: bool) -> None:
    """The cause of the end is the stop, and still it is not known what is stored."""
    outcomes_by_name(setup, a=[LOST, FULL])
    slept = setup.clock.sleep

    async def sleep(seconds: float) -> None:
        setup.stopping.set()
        await slept(seconds)

    setup.clock.sleep = sleep  # type: ignore[method-assign]
    line = order("a", id=str(new_id())) if given else order("a")
    status, out = await setup.send(line)
    assert (status, out["lines_unknown"]) == (504, [1])


async def test_an_unknown_line_with_an_id_counts_as_accepted(setup: Setup) -> None:
    """Its first attempt may have stored it; an order from before cannot be told from that."""
    outcomes_by_name(setup, a=[LOST, None])
    status, out = await setup.send(order("a", id=str(new_id())), order("b", id=str(new_id())))
    assert (status, out["accepted"], out["unchanged"]) == (200, 2, 0)


async def test_a_conflict_after_an_unknown_attempt_decides_nothing(setup: Setup) -> None:
    """Of the two contents the record takes one, and it may be that of the first attempt."""
    given = new_id()
    outcomes_by_name(setup, a=[LOST, ConflictError("other content")])
    setup.accepting._accept = (  # type: ignore[method-assign]
        lambda line: LineOutcome(line.id or new_id(), error=setup.accepting.answer(line))
    )
    status, out = await setup.send(order("a", id=str(given)), order("b"))
    assert (status, out["lines_unknown"]) == (504, [1])
    assert "rejected" not in out


async def test_what_was_rejected_before_the_end_is_in_the_problem(setup: Setup) -> None:
    """Whoever goes on behind such a line never hears of it again."""
    outcomes_by_name(setup, b=[FULL])
    _, out = await setup.send(order(""), order("a"), order("b"))
    assert out["rejected"] == 1
    assert out["lines_rejected"] == [{"line": 1, "detail": "/product_name: must not be empty"}]
    assert "lines_rejected_omitted" not in out


@pytest.mark.parametrize("names", [["Coffee"] * 9, list("abcdefghi")], ids=["equal", "different"])
@pytest.mark.parametrize("whole", [False, True])
async def test_a_keyed_import_is_resumed(setup: Setup, names: list[str], whole: bool) -> None:
    """By the problem's line and the rest under its own numbers, or by the whole body again."""
    lines = [order(name) for name in names]
    outcomes_by_name(setup)
    setup.accepting.answer = lambda _line: FULL if len(setup.accepting.stored) >= 4 else None
    status, out = await setup.send(*lines, headers=KEY)
    assert (status, out["accepted"], out["first_line_not_accepted"]) == (503, 4, 5)
    assert "send line 5 and the rest with the same Idempotency-Key" in out["detail"]
    assert "?first_line=5, or the whole body again" in out["detail"]
    setup.accepting.answer = lambda _line: None
    if whole:
        status, out = await setup.send(*lines, headers=KEY)
    else:
        status, out = await setup.send(*lines[4:], headers=KEY, query="?first_line=5")
    assert (status, out["accepted"], out["unchanged"]) == (200, 5, 4 if whole else 0)
    assert {i: line.content[0] for i, line in setup.accepting.stored.items()} == {
        derived_id("", "abc", number): name for number, name in enumerate(names, 1)
    }


@settings(max_examples=60)
@given(LINES, st.data())
def test_any_cut_of_any_body_is_resumed(lines: list[bytes], data: st.DataObject) -> None:
    """Wherever it is cut, the rest by its first line's number stores what the whole stores."""
    body = b"\n".join(lines)
    cut_at = data.draw(st.integers(0, len(body)))

    async def compare() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bodies, "DISCARD_SECONDS_MAX", 0.0)
            whole, resumed = Setup(), Setup()
            async with whole.client, resumed.client:
                status, expected = await whole.post(body, KEY, REPORT)
                if status == 400:  # another kind of file, of which nothing is stored
                    assert not whole.accepting.stored
                    return
                _, cut = await resumed.cut(body[:cut_at], KEY)
                first = cut["first_line_not_accepted"]
                rest = b"\n".join(body.split(b"\n")[first - 1 :])
                _, after = await resumed.post(rest, KEY, f"{REPORT}&first_line={first}")
        assert resumed.accepting.stored == whole.accepting.stored
        for name in ("accepted", "unchanged", "rejected"):
            assert cut.get(name, 0) + after[name] == expected[name]
        assert cut.get("lines_rejected", []) + after["errors"] == expected["errors"]

    asyncio.run(compare())


async def test_a_rest_without_its_number_is_refused_whole(setup: Setup) -> None:
    """Its first line contradicts the id of line 1; nothing is stored, and the text says why."""
    await setup.send(*[order(name) for name in "abcd"], headers=KEY)
    before = dict(setup.accepting.stored)
    status, out = await setup.send(*[order(name) for name in "efgh"], headers=KEY)
    assert (status, out["type"]) == (422, "/problems#conflict")
    assert "line 1 under this idempotency key" in out["detail"]
    assert "first_line" in out["detail"]
    assert setup.accepting.stored == before
    status, out = await setup.send(order("x"), headers=KEY, query="?first_line=3")
    assert status == 422
    assert "line 3 under this idempotency key" in out["detail"]


async def test_a_body_is_refused_by_the_first_line_that_can_be_read(setup: Setup) -> None:
    """Neither a line that is rejected nor one with an id of its own hides the next."""
    given = new_id()
    await setup.send(order("a", id=str(given)), "", "", order("b"), headers=KEY)
    before = dict(setup.accepting.stored)
    other = order("other", id=str(given))
    status, out = await setup.send("", order(""), other, order("c"), order("d"), headers=KEY)
    assert (status, out["status"]) == (422, 422)
    assert setup.accepting.stored == before


async def test_a_conflict_further_on_is_one_rejected_line(setup: Setup) -> None:
    """A body that begins as before is the same import."""
    await setup.send(*[order(name) for name in "abcd"], headers=KEY)
    status, out = await setup.send(*[order(name) for name in "abxde"], headers=KEY)
    assert (status, out["accepted"], out["unchanged"], out["rejected"]) == (422, 1, 3, 1)
    assert [error["line"] for error in out["lines_rejected"]] == [3]


async def test_every_number_counts_from_the_first_line(setup: Setup) -> None:
    """Those of errors, and those of a problem; also without a key."""
    status, out = await setup.send("", order(""), query="?first_line=1000")
    assert (status, [error["line"] for error in out["lines_rejected"]]) == (422, [1001])
    outcomes_by_name(setup, b=[FULL])
    _, out = await setup.send(order("a"), order("b"), query="?first_line=41")
    assert (out["lines_not_accepted"], out["lines_read"]) == ([42], 42)
    _, out = await setup.send(query=f"?first_line={FIRST_LINE_MAX}")
    assert out["accepted"] == 0


@pytest.mark.parametrize("number", ["0", "-1", "x", "1.5", "", str(FIRST_LINE_MAX + 1), "9" * 99])
async def test_a_first_line_that_is_no_number_of_one_is_400(setup: Setup, number: str) -> None:
    """Nothing is stored."""
    status, out = await setup.send(order("a"), query=f"?first_line={number}")
    assert status == 400
    assert "first_line" in out["detail"]
    assert setup.accepting.stored == {}


@pytest.mark.parametrize("scopes", [{Scope.WRITE}, {Scope.WRITE, Scope.READ}, set(Scope)])
@pytest.mark.parametrize("by_key", [False, True])
async def test_who_may_give_an_id_that_a_key_may_stand_for(
    scopes: set[Scope], by_key: bool
) -> None:
    """Only those who operate the service, and so restore; others may repeat what is there."""
    setup = Setup()
    key = ApiKey("shop", frozenset(scopes), digest_of(b"secret"))
    setup.access.replace_keys([key])
    given = derived_id("another", "invoice-1001"), new_id(), UUID(int=5 << 76 | 2 << 62)
    headers = {"x-api-key": "secret", **(KEY if by_key else {})}
    lines = [{"product_name": "x", "amount": 1, "id": str(one)} for one in given]
    status, _ = await setup.send(*lines, {"product_name": "y", "amount": 1}, headers=headers)
    assert status == 200
    flags = [line.must_be_there for chunk in setup.accepting.chunks for line in chunk]
    assert flags == [Scope.ADMIN not in scopes, False, False, False]
