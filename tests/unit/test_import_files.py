"""Files of the world as imports: what is taken, refused by name, or told by a status."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.import_route import FULL, KEY, REPORT, ROW_MAX, Setup, order, outcomes_by_name


@pytest_asyncio.fixture
async def setup() -> AsyncIterator[Setup]:
    """A fresh import."""
    setup = Setup()
    async with setup.client:
        yield setup


# --- what only the status tells ---


@pytest.mark.parametrize("bad", ["x", order(""), order("a", amount=-1), "x" * 300])
async def test_a_client_that_reads_only_the_status_learns_of_lost_lines(
    setup: Setup, bad: object
) -> None:
    """Whatever a line is rejected for: no 200; what is stored is counted all the same."""
    status, out = await setup.send(order("a"), bad, order("b"))
    assert (status, out["type"]) == (422, "/problems#lines-rejected")
    assert (out["accepted"], out["rejected"], out["lines_read"]) == (2, 1, 3)
    assert [one["line"] for one in out["lines_rejected"]] == [2]
    assert out["detail"].startswith("1 of 3 lines rejected, the others are stored; for example ")
    assert "first_line_not_accepted" not in out
    assert [line.content[0] for line in setup.accepting.stored.values()] == ["a", "b"]


@pytest.mark.parametrize("lines", [["x"], ["x", ""], ["{}", "[1]", "\r0"]])
async def test_an_import_of_no_good_line_stored_none(setup: Setup, lines: list[str]) -> None:
    """And says so: there are no others."""
    _, out = await setup.send(*lines)
    bad = sum(map(bool, lines))
    assert out["detail"].startswith(f"{bad} of {bad} lines rejected, none is stored; for example ")


async def test_mended_lines_are_sent_again_under_the_key(setup: Setup) -> None:
    """The whole body, or the mended line by its number."""
    lines = [order("a"), order(""), order("c"), order("")]
    assert (await setup.send(*lines, headers=KEY))[0] == 422
    status, out = await setup.send(order("b"), headers=KEY, query="?first_line=2")
    assert (status, out["accepted"]) == (200, 1)
    lines[1], lines[3] = order("b"), order("d")
    status, out = await setup.send(*lines, headers=KEY)
    assert (status, out["accepted"], out["unchanged"]) == (200, 1, 3)


@pytest.mark.parametrize("wish", ["", "ignore", "Report", "report,fail"])
async def test_another_wish_for_rejected_lines_is_400(setup: Setup, wish: str) -> None:
    """Nothing is stored under a wish that was not understood."""
    status, out = await setup.send(order("a"), query=f"?on_rejected={wish}")
    assert status == 400
    assert "on_rejected" in out["detail"]
    assert setup.accepting.stored == {}


# --- files of the world ---

TEA = b'{"product_name":"Tea","amount":1}'
RUG = b'{"product_name":"Rug","amount":1}'
BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize(
    "body",
    [
        BOM + TEA + b"\r\n" + RUG + b"\r\n",
        BOM + TEA + b"\n" + RUG,
        BOM + TEA + b"\n" + BOM + RUG + b"\n",  # two files in one
        BOM + b"\r\n" + TEA + b"\n" + BOM + b"\n" + RUG,
        TEA + b"\r\n\r\n" + RUG + b"\r\n" + BOM,
        BOM + b" " * (200 - len(TEA)) + TEA + b"\r\n" + RUG,  # as long as a line may be
    ],
)
async def test_a_byte_order_mark_costs_no_line(setup: Setup, body: bytes) -> None:
    """At the beginning, and where files were joined."""
    status, out = await setup.post(body)
    assert (status, out["accepted"], out["rejected"]) == (200, 2, 0)


@pytest.mark.parametrize(
    ("body", "form"),
    [
        ((TEA + b"\r\n" + RUG).decode().encode("utf-16"), "UTF-16"),
        ((TEA + b"\n" + RUG).decode().encode("utf-16-le"), "UTF-16"),
        ((TEA + b"\n" + RUG).decode().encode("utf-16-be"), "UTF-16"),
        ((TEA + b"\n" + RUG).decode().encode("utf-32"), "UTF-32"),
        (b"\x1f\x8b\x08\x00\x00\n\x00", "gzip"),
        (b"PK\x03\x04\x14\n", "zip"),
        (b"[" + TEA + b"," + RUG + b"]", "JSON array"),
        (b"[\n  " + TEA + b",\n  " + RUG + b"\n]\n", "JSON array"),
        (BOM + b" [\r\n" + TEA + b"\r\n]", "JSON array"),
        (TEA + b"\r" + RUG, "carriage returns alone"),
        (BOM + TEA + b"\r" + RUG + b"\r", "carriage returns alone"),
        (TEA + b"\r\r" + RUG + b"\r" + TEA + b"\n", "carriage returns alone"),
    ],
)
async def test_another_kind_of_file_is_refused_whole_and_named(
    setup: Setup, body: bytes, form: str
) -> None:
    """Before anything of it is stored."""
    status, out = await setup.post(body)
    assert status == 400
    assert form in out["detail"]
    assert setup.accepting.stored == {}


@pytest.mark.parametrize(
    ("line", "detail"),
    [
        (b"[1]", "must be an object"),
        (b"3", "must be an object"),
        (b'{"product_name":"Tea","amount":1},', "there is more text after the value"),
        (b'{"product_name":"Tea" "amount":1}', "a comma or a closing bracket is missing"),
        (b"{'product_name':'Tea'}", "a field's name in double quotes is missing"),
        (TEA + b"\r" + RUG, "a lone carriage return does not end one"),
        (b"\r".join([TEA] * 9), "is longer than 200 bytes (lines end with a line feed"),
    ],
)
async def test_a_rejected_line_says_what_is_wrong_with_it(
    setup: Setup, line: bytes, detail: str
) -> None:
    """In our words, and with no pointer where it is the whole line."""
    _, out = await setup.post(TEA + b"\n" + line)
    assert detail in out["lines_rejected"][0]["detail"]
    assert not out["lines_rejected"][0]["detail"].startswith("/")
    assert "Expecting" not in out["lines_rejected"][0]["detail"]


# --- garbage ---


@pytest.mark.parametrize("garbage", [b"x", b"{}", b"y" * 300, b"\r0", b'{"product_name":"Tea"}'])
async def test_an_import_of_garbage_ends(setup: Setup, garbage: bytes) -> None:
    """After so many rejected lines in a row; the answer counts what was stored before."""
    body = (TEA + b"\n") * 4 + (garbage + b"\n\n") * ROW_MAX + (RUG + b"\n") * 4
    status, out = await setup.post(body, KEY)
    assert (status, out["type"]) == (422, "/problems#lines-rejected")
    assert (out["accepted"], out["rejected"]) == (4, ROW_MAX)
    assert out["lines_read"] == 4 + 2 * ROW_MAX - 1
    assert out["first_line_not_accepted"] == out["lines_read"] + 1
    assert f"{ROW_MAX} lines in a row were rejected" in out["detail"]
    assert f"?first_line={out['first_line_not_accepted']}" in out["detail"]
    assert len(setup.accepting.stored) == 4


async def test_one_good_line_in_between_and_it_goes_on(setup: Setup) -> None:
    """Many slips are still slips."""
    lines = [*["x"] * (ROW_MAX - 1), order("a")] * 3
    status, out = await setup.send(*lines, query=REPORT)
    assert (status, out["accepted"], out["rejected"]) == (200, 3, 3 * (ROW_MAX - 1))


async def test_what_waits_when_garbage_ends_it_is_accepted_first(setup: Setup) -> None:
    """And if it cannot be, that is what the answer is about."""
    lines = [order("a"), *["x"] * (ROW_MAX + 9)]
    assert (await setup.send(*lines))[1]["accepted"] == 1
    outcomes_by_name(setup, a=[FULL])
    status, out = await setup.send(*lines)
    assert (status, out["lines_not_accepted"]) == (503, [1])


class _Watched:
    """Measures the processor time of each callback of an event loop."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.longest_seconds = 0.0
        run = asyncio.Handle._run

        def measured(handle: asyncio.Handle) -> None:
            began = time.thread_time()
            run(handle)
            self.longest_seconds = max(self.longest_seconds, time.thread_time() - began)

        monkeypatch.setattr(asyncio.Handle, "_run", measured)


@pytest.mark.parametrize(
    "line",
    [
        b"x\n",
        b"\n",
        b"\r\n",
        b"{}\n",
        b"[" * 199 + b"\n",
        b'{"product_name":"' + b"\\u00e9" * 29 + b'"}\n',
        BOM + b"\n",
        b"z" * 201 + b"\n",
        TEA + b"\n",
        TEA[:-1] + b',"created_at":"2016-12-31T23:59:60Z"}\n',
    ],
)
async def test_no_import_holds_the_event_loop(monkeypatch: pytest.MonkeyPatch, line: bytes) -> None:
    """However much of a body has arrived, no callback works on it for more than 20 ms."""
    patient = Setup(rejected_in_a_row_max=10**9)
    body = line * (100_000 // len(line) + 1)
    async with patient.client:
        await patient.post(body[:2_000], query=REPORT)  # what is made once is made before
        gc.collect()
        watched = _Watched(monkeypatch)
        status, out = await patient.post(TEA + b"\n" + body, query=REPORT)
    assert status == 200
    assert out["accepted"] >= 1
    assert watched.longest_seconds < 0.02
