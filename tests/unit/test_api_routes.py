"""Every route over flows that answer as the test says: statuses, headers, bodies, problems."""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Sequence
from datetime import date
from decimal import Decimal
from importlib.resources import files
from uuid import UUID

import httpx2
import pytest
import pytest_asyncio

from polyglot_persistence.api.app import build_app
from polyglot_persistence.api.service.pages import PARTS
from polyglot_persistence.domain.dead_letter import DeadLetter, DeadLetterRow, Stage
from polyglot_persistence.domain.order import Order
from polyglot_persistence.errors import (
    NotFoundError,
    PoisonError,
    PolyglotError,
    UnavailableError,
    UnknownOutcomeError,
)
from polyglot_persistence.flows.reading.read import OrderStatus, Read
from polyglot_persistence.ports.orders import StoredOrder
from polyglot_persistence.ports.sales import DaySales
from tests.support.scripted import FakeClock
from tests.support.stub_flows import ID, LIMITS, NOW, OPEN, StubFlows

TEA = {"product_name": "Tea", "amount": 12.5}
DEAD = DeadLetterRow(1, DeadLetter(ID, ID, b"", "poisoned", Stage.PERSIST, 3), NOW, NOW)


class Setup:
    """The application over stub flows, and a client of it."""

    def __init__(self) -> None:
        self.flows = StubFlows()
        self.stopping = asyncio.Event()
        app = build_app(
            self.flows.as_flows(), LIMITS, clock=FakeClock(), stopping=self.stopping, access=OPEN
        )
        self.client = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app), base_url="http://localhost"
        )


@pytest_asyncio.fixture
async def setup() -> AsyncIterator[Setup]:
    """A fresh application."""
    setup = Setup()
    async with setup.client:
        yield setup


async def test_an_order_is_accepted(setup: Setup) -> None:
    """202 with id and status in this order, and where to find it."""
    answer = await setup.client.post("/api/orders", json=TEA)
    assert answer.status_code == 202
    assert answer.text == f'{{"order_id":"{ID}","status":"processing"}}'
    assert answer.headers["location"] == f"/api/orders/{ID}"
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert setup.flows.accepted == [("Tea", Decimal("12.50"))]


async def test_a_key_makes_a_retry_safe(setup: Setup) -> None:
    """The same key and body give the same id, marked as a replay; another body is 422."""
    headers = {"idempotency-key": '"abc"'}
    first = await setup.client.post("/api/orders", json=TEA, headers=headers)
    second = await setup.client.post("/api/orders", json=TEA, headers={"idempotency-key": "abc"})
    other = await setup.client.post("/api/orders", json={**TEA, "amount": 1}, headers=headers)
    assert first.json() == second.json()
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    assert (other.status_code, other.json()["type"]) == (422, "/problems#conflict")


async def test_prefer_wait_answers_201_once_persisted(setup: Setup) -> None:
    """The wait is capped, and what was heeded is said."""
    answer = await setup.client.post("/api/orders", json=TEA, headers={"prefer": "wait=300"})
    assert (answer.status_code, answer.json()["status"]) == (201, "persisted")
    assert answer.headers["preference-applied"] == "wait=30"
    assert answer.headers["location"] == f"/api/orders/{ID}"
    assert setup.flows.waits == [30.0]


@pytest.mark.parametrize(("dead", "status"), [(None, "processing"), (DEAD, "dead-lettered")])
async def test_prefer_wait_answers_202_otherwise(
    setup: Setup, dead: DeadLetterRow | None, status: str
) -> None:
    """Not persisted in time, or never: the 202 says which."""
    setup.flows.persisted = False
    setup.flows.state = OrderStatus(ID, NOW, False, None, None, dead)
    answer = await setup.client.post("/api/orders", json=TEA, headers={"prefer": "wait=1"})
    assert (answer.status_code, answer.json()["status"]) == (202, status)


@pytest.mark.parametrize("asked", ["wait_persisted", "status"])
@pytest.mark.parametrize(
    "error", [UnavailableError("away"), PoisonError("no entry"), ValueError("b'Z' is no state")]
)
async def test_an_accepted_order_is_202_whatever_waiting_meets(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, asked: str, error: Exception
) -> None:
    """An error would say that it was not stored, or that this is not known."""

    async def fail(*_: object) -> None:
        raise error

    setup.flows.persisted = False
    monkeypatch.setattr(setup.flows, asked, fail)
    answer = await setup.client.post("/api/orders", json=TEA, headers={"prefer": "wait=1"})
    assert (answer.status_code, answer.json()["status"]) == (202, "processing")


async def test_waiting_ends_when_the_server_stops(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop is not held up by clients that wait."""

    async def wait_persisted(_ids: Sequence[UUID], _seconds: float) -> bool:
        setup.stopping.set()
        await asyncio.Event().wait()
        return True

    monkeypatch.setattr(setup.flows, "wait_persisted", wait_persisted)
    answer = await setup.client.post("/api/orders", json=TEA, headers={"prefer": "wait=30"})
    assert (answer.status_code, answer.json()["status"]) == (202, "processing")


async def test_respond_async_is_what_happens_anyway(setup: Setup) -> None:
    """It is heeded, and said to be."""
    answer = await setup.client.post("/api/orders", json=TEA, headers={"prefer": "respond-async"})
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "respond-async")
    assert setup.flows.waits == []


async def test_both_forms_of_a_bulk_answer_alike(setup: Setup) -> None:
    """202 with the ids in order."""
    for body, count in (({"orders": [TEA] * 3}, 3), ({"item_1": "Laptop", "item_2": "Mouse"}, 2)):
        answer = await setup.client.post("/api/bulk-orders", json=body)
        assert answer.status_code == 202
        assert list(answer.json()) == ["order_ids", "status"]
        assert len({UUID(text) for text in answer.json()["order_ids"]}) == count
    assert [str(amount) for _, amount in setup.flows.accepted[3:]] == ["100.00", "50.00"]


async def test_one_bad_order_refuses_a_bulk(setup: Setup) -> None:
    """Nothing is accepted, and the answer says which order and which rule."""
    body = {"orders": [TEA, {**TEA, "amount": "12.345"}]}
    answer = await setup.client.post("/api/bulk-orders", json=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"] == [
        {"detail": "must have at most two decimals", "pointer": "/orders/1/amount"}
    ]
    error = await setup.client.post("/api/bulk-orders", json={"item_1": "a", "item_2": "ERROR"})
    assert error.status_code == 422
    assert setup.flows.accepted == []


@pytest.mark.parametrize(("hit", "source"), [(True, "HIT"), (False, "MISS")])
async def test_a_read_says_where_it_was_found(setup: Setup, hit: bool, source: str) -> None:
    """The order's own bytes, unchanged."""
    setup.flows.read = Read(b'{"id":"x","amount":1.10}', hit)
    answer = await setup.client.get(f"/api/orders/{ID}")
    assert (answer.status_code, answer.headers["x-cache"]) == (200, source)
    assert answer.content == b'{"id":"x","amount":1.10}'


@pytest.mark.parametrize(
    "text",
    ["x", "0", str(ID)[:-1], str(ID) + "0", "0199f0c17a427c319d0e3f5b8c2a1e04", f"{{{ID}}}", "%00"],
)
async def test_a_malformed_id_is_400(setup: Setup, text: str) -> None:
    """For the order and for its status."""
    for path in (f"/api/orders/{text}", f"/api/orders/{text}/status"):
        answer = await setup.client.get(path)
        assert (answer.status_code, answer.json()["type"]) == (400, "/problems#malformed")


@pytest.mark.parametrize(
    ("error", "status", "name"),
    [
        (NotFoundError("there is no such order"), 404, "not-found"),
        (UnavailableError("away", retry_after_seconds=7), 503, "unavailable"),
        (UnknownOutcomeError("lost"), 504, "unknown-outcome"),
        (PolyglotError("inside"), 500, "internal"),
        (RuntimeError("inside"), 500, "internal"),
    ],
)
async def test_each_error_is_its_problem(
    setup: Setup, error: Exception, status: int, name: str
) -> None:
    """Whatever the route; and what nobody foresaw tells nothing of the inside."""
    setup.flows.error = error
    for method, path, body in (
        ("GET", f"/api/orders/{ID}", None),
        ("POST", "/api/orders", TEA),
        ("POST", "/api/bulk-orders", {"orders": [TEA]}),
        ("GET", "/api/search?q=tea", None),
    ):
        answer = await setup.client.request(method, path, json=body)
        problem = answer.json()
        assert answer.status_code == problem["status"] == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["cache-control"] == "no-store"
        assert problem["type"] == f"/problems#{name}"
        assert problem["instance"] == path.partition("?")[0]
        assert ("inside" in answer.text) == (str(error) == "inside" and status != 500)
        assert answer.headers.get("retry-after") == ("7" if status == 503 else None)


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (OrderStatus(ID, NOW, False, None, None, None), "processing"),
        (OrderStatus(ID, NOW, True, NOW, None, None), "persisted"),
        (OrderStatus(ID, NOW, True, NOW, NOW, None), "searchable"),
        (OrderStatus(ID, None, False, None, None, DEAD), "dead-lettered"),
    ],
)
async def test_the_status_says_which_stages_are_reached(
    setup: Setup, state: OrderStatus, status: str
) -> None:
    """With their times, and when to ask again while it is not at its end."""
    setup.flows.state = state
    answer = await setup.client.get(f"/api/orders/{ID}/status")
    out = answer.json()
    assert (answer.status_code, out["status"]) == (200, status)
    assert ("retry-after" in answer.headers) == (status in ("processing", "persisted"))
    assert out["reason"] == ("poisoned" if status == "dead-lettered" else None)
    assert list(out) == [
        "order_id",
        "status",
        "accepted_at",
        "persisted_at",
        "searchable_at",
        "dead_lettered_at",
        "reason",
    ]


def _row(number: int) -> StoredOrder:
    order = Order(UUID(int=number), f"p{number}", Decimal("1.10"), NOW)
    return StoredOrder(order, NOW, NOW)


async def test_pages_follow_one_another_to_the_end(setup: Setup) -> None:
    """Each order once, though all have the same time; the last page has no next."""
    setup.flows.rows = [_row(number) for number in range(7, 0, -1)]
    path: str | None = "/api/orders?limit=3"
    names = []
    while path is not None:
        answer = await setup.client.get(path)
        page = answer.json()
        names.append([order["product_name"] for order in page["orders"]])
        path = page.get("next")
        assert ("link" in answer.headers) == (path is not None)
        if path is not None:
            assert answer.headers["link"] == f'<{path}>; rel="next"'
            assert page["next_cursor"] in path
    assert names == [["p7", "p6", "p5"], ["p4", "p3", "p2"], ["p1"]]


async def test_the_size_of_a_page_is_capped(setup: Setup) -> None:
    """More than the most is taken as the most, and an empty page is an array."""
    setup.flows.rows = [_row(number) for number in range(300, 0, -1)]
    answer = await setup.client.get("/api/orders?limit=9223372036854775807")
    assert len(answer.json()["orders"]) == 200
    beyond = await setup.client.get("/api/orders?limit=9223372036854775808")
    assert beyond.status_code == 400  # no integer of 64 bits, as the description says
    assert len((await setup.client.get("/api/orders")).json()["orders"]) == 50
    setup.flows.rows = []
    assert (await setup.client.get("/api/orders")).json() == {"orders": []}


@pytest.mark.parametrize(
    "path",
    [
        "/api/orders?cursor=x",
        "/api/orders?cursor=%C3%A4",
        "/api/orders?cursor=AAAA",
        "/api/orders?cursor=f___________AAAAAAAAAAAAAAAAAAAA",
        "/api/orders?limit=0",
        "/api/orders?limit=-1",
        "/api/orders?limit=x",
        "/api/orders?limit=1.5",
        "/api/orders?limit=%C2%B2",
        "/api/orders?limit=",
        "/api/search",
        "/api/search?q=",
        "/api/search?q=%20",
        "/api/search?q=" + "x" * 201,
        "/api/search?q=tea&limit=0",
        "/api/dashboard/sales?days=0",
        "/api/dashboard/sales?days=36601",
        "/api/dashboard/sales?days=x",
        "/api/dashboard/sales?days=-5",
        "/api/dashboard/sales?live=yes",
    ],
)
async def test_a_bad_query_is_400(setup: Setup, path: str) -> None:
    """A parameter that cannot be read is refused, not guessed."""
    answer = await setup.client.get(path)
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems#malformed")


async def test_the_dashboard_lists_days(setup: Setup) -> None:
    """Revenue is an exact number however large; no days are an empty array."""
    assert (await setup.client.get("/api/dashboard/sales")).json() == []
    assert setup.flows.days_max == 30
    setup.flows.days = [DaySales(date(2026, 1, 31), Decimal("123456789012345678.90"), 3)]
    answer = await setup.client.get("/api/dashboard/sales?days=36600")
    assert answer.text == (
        '[{"date":"2026-01-31","total_revenue":123456789012345678.90,"orders":3}]'
    )
    assert setup.flows.days_max == 36_600


async def test_the_view_is_refreshed(setup: Setup) -> None:
    """A POST without a body and without a content type, as the peer's curl sends it."""
    answer = await setup.client.post("/api/admin/refresh")
    assert (answer.status_code, answer.json()) == (200, {"refreshed_at": "2026-01-31T12:00:00Z"})


@pytest.mark.parametrize(
    "path", ["/nope", "/api/orders/", "/api/orders/x/y", "/docs/x.js", "/page/index.html"]
)
async def test_an_unknown_path_is_a_problem(setup: Setup, path: str) -> None:
    """404."""
    answer = await setup.client.get(path)
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems#no-route")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/api/orders", "GET, HEAD, POST"),
        ("PUT", f"/api/orders/{ID}", "GET, HEAD"),
        ("GET", "/api/admin/refresh", "POST"),
        ("POST", "/metrics", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_told_the_right_ones(
    setup: Setup, method: str, path: str, allow: str
) -> None:
    """405 with every method of the path."""
    answer = await setup.client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allow)


async def test_head_is_answered_without_a_body(setup: Setup) -> None:
    """The headers are those of GET."""
    got = await setup.client.get(f"/api/orders/{ID}")
    head = await setup.client.head(f"/api/orders/{ID}")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers == got.headers


async def test_a_body_over_the_limit_is_413(setup: Setup) -> None:
    """Announced or found out while it comes."""

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b" " * 512

    headers = {"content-type": "application/json"}
    for content in (b" " * 1_025, parts()):
        answer = await setup.client.post("/api/orders", content=content, headers=headers)
        assert (answer.status_code, answer.json()["type"]) == (413, "/problems#too-large")
    assert (await setup.client.post("/api/bulk-orders", json={"orders": [TEA] * 20})).is_success


@pytest.mark.parametrize("path", ["/api/orders", "/api/bulk-orders", "/api/orders/import"])
async def test_another_content_type_is_415(setup: Setup, path: str) -> None:
    """Also none at all."""
    for headers in ({"content-type": "text/plain"}, {}):
        answer = await setup.client.post(path, content=b"{}", headers=headers)
        assert (answer.status_code, answer.json()["type"]) == (415, "/problems#unsupported-media")


async def test_requests_are_measured_by_route(setup: Setup) -> None:
    """Templates and known methods only: no id and no invented word becomes a label."""
    await setup.client.get(f"/api/orders/{ID}")
    await setup.client.request("BREW", f"/api/orders/{ID}")
    await setup.client.get("/secret-path")
    text = (await setup.client.get("/metrics")).text
    assert 'http_route="/api/orders/{id}"' in text
    assert 'http_request_method="_OTHER"' in text
    for word in (str(ID), "BREW", "secret-path"):
        assert word not in text


async def test_the_page_needs_nothing_from_elsewhere(setup: Setup) -> None:
    """Everything it names is served here, under a policy that forbids anything else."""
    page = await setup.client.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"].startswith("default-src 'self';")
    assert "http" not in page.text.replace("https", "http").split("<body>")[1]
    for path in ("/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css", "/docs/docs.js"):
        assert f'"{path[1:]}"' in page.text  # so that it may stand below a path prefix
        part = await setup.client.get(path)
        assert part.status_code == 200
        again = await setup.client.get(path, headers={"if-none-match": part.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


async def test_every_problem_has_a_place_on_the_page_of_problems(setup: Setup) -> None:
    """The `type` of a problem leads to its meaning."""
    kind = (await setup.client.get("/nope")).json()["type"].partition("#")[2]
    assert f'id="{kind}"' in (await setup.client.get("/problems")).text


async def test_liveness_asks_nobody(setup: Setup) -> None:
    """It is told whatever the stores do."""
    setup.flows.error = UnavailableError("away")
    answer = await setup.client.get("/health/live")
    assert (answer.status_code, answer.json()) == (200, {"status": "alive"})


async def test_the_live_page_has_all_of_its_parts(setup: Setup) -> None:
    """Every part that a part names is served, and no part is served that none names."""
    page = await setup.client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"].startswith("default-src 'self';")
    pending = set(re.findall(r'"page/([^"]+)"', page.text))
    seen: set[str] = set()
    while pending:
        name = pending.pop()
        seen.add(name)
        part = await setup.client.get(f"/page/{name}")
        assert part.status_code == 200, name
        again = await setup.client.get(
            f"/page/{name}", headers={"if-none-match": part.headers["etag"]}
        )
        assert (again.status_code, again.content) == (304, b"")
        if name.endswith(".js"):
            pending |= set(re.findall(r'from "\./([^"]+)"', part.text)) - seen
    assert seen == set(PARTS)


@pytest.mark.parametrize("folder", ["assets/swagger-ui", "dashboard/static/vendor"])
def test_what_is_vendored_is_what_was_published(folder: str) -> None:
    """Each file has the sum that stands in the manifest."""
    directory = files("polyglot_persistence.api.service").joinpath(folder)
    lines = directory.joinpath("SHA256SUMS").read_text().splitlines()
    sums = {
        name: expected
        for line in lines
        if not line.startswith("#")
        for expected, name in [line.split()]
    }
    assert {*sums, "SHA256SUMS"} == {entry.name for entry in directory.iterdir()}
    for name, expected in sums.items():
        assert hashlib.sha256(directory.joinpath(name).read_bytes()).hexdigest() == expected


async def test_json_is_what_the_description_says(setup: Setup) -> None:
    """The description is served, and is JSON."""
    answer = await setup.client.get("/openapi.json")
    assert json.loads(answer.text)["openapi"] == "3.1.0"
