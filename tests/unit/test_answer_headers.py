"""The headers that every answer carries, whatever the route, and whether it is refused or not."""

import asyncio
import re

import httpx2
import pytest

from polyglot_persistence.api.app import build_app
from polyglot_persistence.api.routes import ROUTES, Route
from polyglot_persistence.api.service.pages import PARTS
from polyglot_persistence.bootstrap.boundary import front_of
from polyglot_persistence.config import load
from polyglot_persistence.domain.access import Scope
from tests.support.scripted import FakeClock
from tests.support.stub_flows import LIMITS, OPEN, StubFlows

APP = build_app(
    StubFlows().as_flows(),
    LIMITS,
    clock=FakeClock(),
    stopping=asyncio.Event(),
    access=OPEN,
    front=front_of(load({"API_HOST": "127.0.0.1", "TRUSTED_ORIGINS": "https://shop.example"})),
)
REFUSED = [
    ("GET", "/nothing/here", {}),
    ("PATCH", "/api/orders", {}),
    ("POST", "/api/orders", {"content-type": "text/plain"}),
    ("POST", "/api/orders", {"content-type": "application/json"}),
    ("POST", "/api/orders", {"content-encoding": "gzip"}),
    ("POST", "/api/orders", {"origin": "https://evil.example"}),
    ("GET", "/api/orders/1", {}),
    ("GET", "/api/orders?nope=1", {}),
    ("GET", "/health/live", {"host": "evil.example"}),
    (
        "OPTIONS",
        "/api/orders",
        {"origin": "https://shop.example", "access-control-request-method": "POST"},
    ),
]


async def asked(method: str, path: str, headers: dict[str, str] | None = None) -> httpx2.Response:
    transport = httpx2.ASGITransport(APP)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await client.request(method, path, headers=headers)


def check(answer: httpx2.Response) -> None:
    """Assert what must hold of each answer."""
    assert answer.headers["x-content-type-options"] == "nosniff"
    # A file of the package may be kept, and is asked for again with its tag; nothing else is.
    kept = "no-cache" if "etag" in answer.headers else "no-store"
    assert answer.headers["cache-control"] == kept
    assert "set-cookie" not in answer.headers
    media_type = answer.headers.get("content-type", "")
    if media_type.startswith("text/html"):
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["referrer-policy"] in ("same-origin", "no-referrer")


ANSWERED = [one for one in ROUTES if one.path != "/api/live"]


@pytest.mark.parametrize("route", ANSWERED, ids=lambda route: f"{route.method} {route.path}")
async def test_every_route_says_how_its_answers_are_kept_and_shown(route: Route) -> None:
    """Whatever the answer; data are kept nowhere on the way, and files are known by their tag."""
    answer = await asked(route.method, re.sub(r"\{\w+\}", "1", route.path))
    check(answer)
    assert route.scope is Scope.PUBLIC or "etag" not in answer.headers


@pytest.mark.parametrize("part", [*(f"/page/{name}" for name in PARTS), "/docs/docs.js"])
async def test_files_are_no_documents(part: str) -> None:
    """Each has its own type, and none is shown as a page."""
    answer = await asked("GET", part)
    check(answer)
    assert answer.status_code == 200
    assert not answer.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize(("method", "path", "headers"), REFUSED)
async def test_refusals_carry_them_too(method: str, path: str, headers: dict[str, str]) -> None:
    """Also where no route was chosen."""
    check(await asked(method, path, headers))
