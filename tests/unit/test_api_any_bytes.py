"""Any bytes as orders, bulks and lines of an import: refused or accepted, never a failure."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import httpx2
from hypothesis import given, settings
from hypothesis import strategies as st

from polyglot_persistence.api.app import build_app
from polyglot_persistence.domain.order import new_id
from polyglot_persistence.flows.intake.accept import ImportLine, LineOutcome
from tests.support.scripted import FakeClock
from tests.support.stub_flows import LIMITS, OPEN, StubFlows

BROKEN = {400, 413, 415, 422}
GOOD_LINE = b'{"product_name": "Tea", "amount": 12.5}'

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["product_name", "amount", "id", "orders", "x"]), inner)
    ),
    max_leaves=12,
)
_bodies = (
    st.binary(max_size=2_000)
    | _json.map(lambda value: json.dumps(value).encode())
    | _json.map(lambda value: json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass"))
)
_lines = st.lists(st.just(GOOD_LINE) | _bodies.map(lambda body: body.replace(b"\n", b" ")))


class Flows(StubFlows):
    """Accepts every line that gets so far."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = 0

    async def accept_lines(self, lines: Sequence[ImportLine]) -> Sequence[LineOutcome]:
        self.lines += len(lines)
        return [LineOutcome(line.id or new_id()) for line in lines]


FLOWS = Flows()
APP = build_app(FLOWS.as_flows(), LIMITS, clock=FakeClock(), stopping=asyncio.Event(), access=OPEN)


def send(path: str, body: bytes, content_type: str) -> tuple[int, Any, Flows]:
    """Return the answer to one request, and what it did."""
    FLOWS.accepted.clear()
    FLOWS.lines = 0

    async def post() -> httpx2.Response:
        transport = httpx2.ASGITransport(APP, raise_app_exceptions=True)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.post(path, content=body, headers={"content-type": content_type})

    answer = asyncio.run(post())
    return answer.status_code, answer.json(), FLOWS


@settings(max_examples=150)
@given(body=_bodies, path=st.sampled_from(["/api/orders", "/api/bulk-orders"]))
def test_any_body_is_an_order_or_refused_with_a_reason(body: bytes, path: str) -> None:
    """Nothing is accepted of what is refused, and a refusal is a problem that says why."""
    status, answer, flows = send(path, body, "application/json")
    if status == 202:
        assert flows.accepted
    else:
        assert status in BROKEN, answer
        assert answer["detail"]
        assert flows.accepted == []


@settings(max_examples=150)
@given(lines=_lines, ending=st.sampled_from([b"\n", b"\r\n"]), closed=st.booleans())
def test_every_line_of_an_import_is_accepted_or_rejected(
    lines: list[bytes], ending: bytes, closed: bool
) -> None:
    """Whatever bytes it has: the counts are those of the lines, and good ones are not held up."""
    body = ending.join(lines) + (ending if closed else b"")
    target = "/api/orders/import?on_rejected=report"
    status, answer, flows = send(target, body, "application/x-ndjson")
    if status == 400:  # by its first line it is another kind of file
        assert flows.lines == 0
        return
    assert status == 200, answer
    sent = [line.removesuffix(b"\r") for line in body.split(b"\n")]
    texts = [line.removeprefix(b"\xef\xbb\xbf") for line in sent]
    filled = [number for number, line in enumerate(texts, 1) if line and not line.isspace()]
    assert answer["accepted"] + answer["unchanged"] + answer["rejected"] == len(filled)
    assert answer["accepted"] == flows.lines >= lines.count(GOOD_LINE)
    reported = [error["line"] for error in answer["errors"]]
    assert len(reported) + answer["errors_omitted"] == answer["rejected"]
    assert set(reported) <= set(filled)
    assert not {n for n in reported if sent[n - 1] == GOOD_LINE}
