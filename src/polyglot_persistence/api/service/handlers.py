"""What operators and browsers ask: metrics, health, the API's description and its page."""

import functools
import html
import re

import msgspec
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request

from polyglot_persistence.api.service.schemas import LiveOut, ReadyOut, StoreOut
from polyglot_persistence.api.web.bodies import BodyReader
from polyglot_persistence.api.web.endpoint import may_look_inside
from polyglot_persistence.api.web.problems import KINDS, NO_ROUTE, problem
from polyglot_persistence.api.web.replies import COMMON_HEADERS, Headers, Reply, json_reply
from polyglot_persistence.api.web.static_files import file_reply, packaged_file
from polyglot_persistence.flows.watch.health import Health, HealthFlow, SharedHealth
from polyglot_persistence.telemetry import REGISTRY

# Swagger UI sets style attributes and draws its icons from data URIs.
_POLICY = (
    b"default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    b"base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
PAGE_HEADERS: Headers = (
    (b"content-type", b"text/html; charset=utf-8"),
    *COMMON_HEADERS,
    (b"content-security-policy", _POLICY),
    (b"referrer-policy", b"no-referrer"),
)

_JAVASCRIPT = b"text/javascript; charset=utf-8"
ASSETS = {
    "docs.js": ("docs.js", _JAVASCRIPT),
    "swagger-ui-bundle.js": ("swagger-ui/swagger-ui-bundle.js", _JAVASCRIPT),
    "swagger-ui.css": ("swagger-ui/swagger-ui.css", b"text/css; charset=utf-8"),
}
"""By the last step of its path: where an asset lies, and its type. Nothing else is served."""


class ServiceRoutes:
    """The routes around the API itself."""

    def __init__(self, health: HealthFlow, description: bytes = b"") -> None:
        self._health = SharedHealth(health)
        self._description = description

    async def metrics(self, _request: Request, _body: BodyReader) -> Reply:
        """GET /metrics: everything in Prometheus's text form."""
        headers = ((b"content-type", CONTENT_TYPE_LATEST.encode()), *COMMON_HEADERS)
        return 200, headers, generate_latest(REGISTRY)

    async def live(self, _request: Request, _body: BodyReader) -> Reply:
        """GET /health/live: the process runs; no store is asked."""
        return json_reply(200, LiveOut())

    async def ready(self, request: Request, _body: BodyReader) -> Reply:
        """GET /health/ready: 200 while orders can be accepted; for operators, each store's state.

        However many ask, the stores are asked about once a second.
        """
        health = await self._health.check()
        is_operator = may_look_inside(request)
        out = stores_out(health, True) if is_operator else mode_out(health)
        return json_reply(200 if health.accepting else 503, out)

    async def openapi(self, _request: Request, _body: BodyReader) -> Reply:
        """GET /openapi.json: the description of this API."""
        return 200, ((b"content-type", b"application/json"), *COMMON_HEADERS), self._description

    async def docs(self, _request: Request, _body: BodyReader) -> Reply:
        """GET /docs: the description as a page."""
        return 200, PAGE_HEADERS, packaged_file("assets/docs.html")[0]

    async def docs_asset(self, request: Request, _body: BodyReader) -> Reply:
        """GET /docs/{asset}: what the page consists of."""
        known = ASSETS.get(request.path_params["asset"])
        if known is None:
            return problem(NO_ROUTE, "the page has no part of this name", request.scope["path"])
        return file_reply(request, f"assets/{known[0]}", known[1])

    async def problems(self, _request: Request, _body: BodyReader) -> Reply:
        """GET /problems: what the `type` of each problem means."""
        return 200, PAGE_HEADERS, _problems_page()


def mode_out(health: Health) -> ReadyOut:
    """Return what anybody may know."""
    return ReadyOut("ready" if health.accepting else "not ready", health.mode)


def stores_out(health: Health, is_operator: bool) -> ReadyOut:
    """Return which stores are up, and, to an operator, what they say of themselves."""
    stores = {
        name: StoreOut(up=store.state is not None)
        if not is_operator
        else StoreOut(up=False, error="does not answer; see the log")
        if store.state is None
        else StoreOut(up=True, version=store.state.version, warnings=list(store.state.warnings))
        for name, store in health.stores.items()
    }
    return msgspec.structs.replace(mode_out(health), stores=stores)


def _marked_up(text: str) -> str:
    return re.sub("`(.*?)`", r"<code>\1</code>", html.escape(text))


@functools.cache
def _problems_page() -> bytes:
    parts = [
        f'<h2 id="{kind.name}">{kind.status} {html.escape(kind.title)}</h2>'
        f"<p>{_marked_up(kind.meaning)}</p>"
        for kind in KINDS
    ]
    head = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Problems</title>'
        '<meta name="viewport" content="width=device-width"><h1>Problems</h1>'
        "<p>What the <code>type</code> of an error's answer means.</p>"
    )
    return (head + "".join(parts)).encode()
