"""The pages of the service and their parts: the live page, the API's description, the problems.

Invariant: files are served as they are, under a policy that allows nothing from elsewhere, with a
tag by which browsers keep them.
"""

import functools
import hashlib
import html
import re
from importlib.resources import files

from starlette.requests import Request

from polyglot_persistence.api.web.bodies import BodyReader
from polyglot_persistence.api.web.endpoint import prefix_of
from polyglot_persistence.api.web.problems import KINDS, NO_ROUTE, problem
from polyglot_persistence.api.web.replies import COMMON_HEADERS, Headers, Reply


def _headers(policy: bytes, referrer: bytes) -> Headers:
    return (
        (b"content-type", b"text/html; charset=utf-8"),
        *COMMON_HEADERS,
        (b"content-security-policy", policy),
        (b"referrer-policy", referrer),
    )


_POLICY = b"default-src 'self'; base-uri %b; form-action 'self'; frame-ancestors 'none'"
_LIVE_HEADERS = _headers(_POLICY % b"'none'", b"same-origin")
_LIVE_HEADERS_WITH_BASE = _headers(_POLICY % b"'self'", b"same-origin")
_DOCS_HEADERS = _headers(
    # Swagger UI sets style attributes and draws its icons from data URIs.
    b"default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    b"base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    b"no-referrer",
)
_HEAD = b"<head>"

_JAVASCRIPT = b"text/javascript; charset=utf-8"
_STYLES = b"text/css; charset=utf-8"
PARTS = {
    "page.css": ("page.css", _STYLES),
    "icon.svg": ("icon.svg", b"image/svg+xml"),
    **{
        f"{name}.js": (f"{name}.js", _JAVASCRIPT)
        for name in (
            "main",
            "api",
            "charts",
            "dead-letters",
            "figures",
            "format",
            "html",
            "orders",
            "sales",
            "search",
            "stores",
            "stream",
        )
    },
    "preact.mjs": ("vendor/preact.mjs", _JAVASCRIPT),
    "htm.mjs": ("vendor/htm.mjs", _JAVASCRIPT),
    "uPlot.iife.min.js": ("vendor/uPlot.iife.min.js", _JAVASCRIPT),
    "uPlot.min.css": ("vendor/uPlot.min.css", _STYLES),
}
ASSETS = {
    "docs.js": ("docs.js", _JAVASCRIPT),
    "swagger-ui-bundle.js": ("swagger-ui/swagger-ui-bundle.js", _JAVASCRIPT),
    "swagger-ui.css": ("swagger-ui/swagger-ui.css", _STYLES),
}
"""By the last step of its path: where a part lies, and its type. Nothing else is served."""


class PageRoutes:
    """The routes of pages."""

    async def page(self, request: Request, _body: BodyReader) -> Reply:
        """GET /: the live page.

        Below a prefix the page states its base, because the browser may have left out the slash at
        the end: proxies that strip the prefix do not show which path the browser requested.
        """
        page, _ = _packaged("dashboard/static/index.html")
        prefix = prefix_of(request)
        if not prefix:
            return 200, _LIVE_HEADERS, page
        base = f'<base href="{html.escape(prefix)}/">'.encode()
        return 200, _LIVE_HEADERS_WITH_BASE, page.replace(_HEAD, _HEAD + base, 1)

    async def part(self, request: Request, _body: BodyReader) -> Reply:
        """GET /page/{part}: a part of the live page."""
        return _part(request, "dashboard/static", PARTS.get(request.path_params["part"]))

    async def docs(self, _request: Request, _body: BodyReader) -> Reply:
        """GET /docs: the API's description as a page."""
        return 200, _DOCS_HEADERS, _packaged("assets/docs.html")[0]

    async def docs_asset(self, request: Request, _body: BodyReader) -> Reply:
        """GET /docs/{asset}: a part of that page."""
        return _part(request, "assets", ASSETS.get(request.path_params["asset"]))

    async def problems(self, _request: Request, _body: BodyReader) -> Reply:
        """GET /problems: what the `type` of each problem means."""
        return 200, _DOCS_HEADERS, _problems_page()


@functools.cache
def _packaged(path: str) -> tuple[bytes, bytes]:
    """Return a file by its path below `api/service/`, and its entity tag."""
    body = files("polyglot_persistence.api.service").joinpath(path).read_bytes()
    return body, b'"%b"' % hashlib.sha256(body).hexdigest()[:32].encode()


def _part(request: Request, folder: str, known: tuple[str, bytes] | None) -> Reply:
    """Return a file, or 304 if the client has it already."""
    if known is None:
        return problem(NO_ROUTE, "the page has no part of this name", request.scope["path"])
    path, content_type = known
    body, etag = _packaged(f"{folder}/{path}")
    headers = (
        (b"content-type", content_type),
        (b"cache-control", b"no-cache"),
        (b"x-content-type-options", b"nosniff"),
        (b"etag", etag),
    )
    if request.headers.get("if-none-match", "").encode() == etag:
        return 304, headers, b""
    return 200, headers, body


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
