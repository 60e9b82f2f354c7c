"""The fast lane and the framework answer every client alike, also one that speaks no HTTP.

`SEED` repeats a run; `CASES` changes its length. What a run found is in `corpus.jsonl`.
"""

import json
import os
import random
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from polyglot_persistence.api.protocol.rendering import CONTINUE
from polyglot_persistence.api.web.access import Access
from polyglot_persistence.domain.access import ApiKey, Scope, digest_of, parse_scopes
from polyglot_persistence.errors import NotFoundError, UnavailableError, UnknownOutcomeError
from polyglot_persistence.flows.reading.read import Read
from tests.hostile.grammar import Case, cases
from tests.hostile.lanes import CountingFlows, Lane, Seen
from tests.support.http_limits import HTTP_LIMITS
from tests.support.stub_flows import EVERYTHING

CORPUS = Path(__file__).with_name("corpus.jsonl")
CASES = int(os.environ.get("CASES", "10000"))
KEYS = [ApiKey(name, parse_scopes(name), digest_of(name.encode())) for name in ("read", "write")]
ERRORS = (
    *(None, None, None),
    *(NotFoundError("no"), UnavailableError("away"), UnknownOutcomeError("lost")),
)
_STATUS = re.compile(rb"HTTP/1.1 ([0-9]{3}) ")
STORED = (b"HTTP/1.1 202 Accepted\r\n", b"HTTP/1.1 201 Created\r\n")


def two_lanes(*, is_open: bool) -> Sequence[Lane]:
    """Return the two lanes, without keys or with some."""
    without_key = EVERYTHING if is_open else frozenset[Scope]()
    access = Access([] if is_open else KEYS, without_key=without_key)
    return [Lane(HTTP_LIMITS, access, is_fast=is_fast) for is_fast in (False, True)]


def corpus() -> Sequence[Case]:
    """Return what earlier runs found."""
    lines = CORPUS.read_text().splitlines()
    return [
        Case([piece.encode("latin-1") for piece in json.loads(line)["pieces"]]) for line in lines
    ]


async def differing(lanes: Sequence[Lane], case: Case) -> tuple[str, Seen]:
    """Return in what the lanes differ about a case, or what both do wrong; or nothing."""
    plain, fast = [await lane.ask(case.pieces) for lane in lanes]
    return f"plain {plain}\nfast  {fast}" if plain != fast else _wrong(plain), plain


def _wrong(seen: Seen) -> str:
    if not seen.is_closed:
        return f"the connection stays open: {seen}"
    if seen.is_forgotten:
        return f"the connection has no deadline: {seen}"
    answers = sum(seen.written.count(line) for line in STORED)
    if answers != seen.taken:
        return f"{seen.taken} orders or bulks stored, {answers} answered: {seen}"
    if b"HTTP/1.1 500" in seen.written:
        return f"the server failed: {seen}"
    return ""


def prepare(flows: CountingFlows, mood: int) -> None:
    """Have the flows answer in one of some ways, the same for both lanes."""
    flows.error = ERRORS[mood % len(ERRORS)]
    failing = flows.error is not None  # then no order is remembered, or in the cache
    flows.remembered = b'{"id":"y"}' if mood % 2 and not failing else None
    flows.read = Read(b'{"id":"y"}', hit=bool(mood % 2))
    flows.in_cache = (None, False, not failing)[mood % 3]


@pytest.mark.timeout(300)
async def test_mutated_requests_are_answered_alike() -> None:
    """Status, headers, bodies, order, the end of the connection; and what reached the flows."""
    seed = int(os.environ.get("SEED", "0")) or random.randrange(1 << 32)
    print(f"seed {seed}")
    sides = [two_lanes(is_open=True), two_lanes(is_open=False)]
    statuses: set[bytes] = set()
    for number, case in enumerate(cases(seed, CASES)):
        lanes = sides[number % 2]
        for lane in lanes:
            prepare(lane.flows, number // 2)
        found, seen = await differing(lanes, case)
        assert not found, f"seed {seed}, case {number}: {json.dumps(as_text(case))}\n{found}"
        statuses.update(_STATUS.findall(seen.written))
    reached = {int(status) for status in statuses}
    assert reached >= {200, 202, 400, 401, 403, 404, 405, 413, 415, 422, 431, 501, 503, 504}


async def test_the_corpus_is_answered_alike() -> None:
    """What runs found, in each mood of the flows."""
    sides = [two_lanes(is_open=True), two_lanes(is_open=False)]
    assert len(corpus()) >= 20
    for number, case in enumerate(corpus()):
        for lanes in sides:
            for mood in range(6):
                for lane in lanes:
                    prepare(lane.flows, mood)
                found, _ = await differing(lanes, case)
                assert not found, f"line {number + 1}, mood {mood}: {found}"


async def test_a_request_is_the_same_however_it_is_cut() -> None:
    """At every byte, and into single bytes: what it says does not depend on how it arrives."""
    lanes = two_lanes(is_open=True)
    for case in corpus():
        if len(case.data) > 700:
            continue
        whole = await _without_interim(lanes[1], [case.data])
        single = [case.data[i : i + 1] for i in range(len(case.data))]
        assert await _without_interim(lanes[1], single) == whole, case
        for place in range(1, len(case.data)):
            cut = await _without_interim(lanes[1], [case.data[:place], case.data[place:]])
            assert cut == whole, (place, case)


async def _without_interim(lane: Lane, pieces: Sequence[bytes]) -> Seen:
    """Return what is answered, without the 100, which a body that is there already needs not."""
    seen = await lane.ask(pieces)
    return seen._replace(written=seen.written.replace(CONTINUE, b""))


def as_text(case: Case) -> Sequence[str]:
    """Return a case as the corpus has it."""
    return [piece.decode("latin-1") for piece in case.pieces]
