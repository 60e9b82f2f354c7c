"""Serves the live page and its parts, under a policy that allows nothing from elsewhere."""

import html

from starlette.requests import Request

from polyglot_persistence.api.web.bodies import BodyReader
from polyglot_persistence.api.web.endpoint import prefix_of
from polyglot_persistence.api.web.problems import NO_ROUTE, problem
from polyglot_persistence.api.web.replies import COMMON_HEADERS, Headers, Reply
from polyglot_persistence.api.web.static_files import file_reply, packaged_file

_FOLDER = "dashboard/static"


def _headers(base: bytes) -> Headers:
    policy = b"default-src 'self'; base-uri %b; form-action 'self'; frame-ancestors 'none'" % base
    return (
        (b"content-type", b"text/html; charset=utf-8"),
        *COMMON_HEADERS,
        (b"content-security-policy", policy),
        (b"referrer-policy", b"same-origin"),
    )


_HEADERS, _HEADERS_WITH_BASE = _headers(b"'none'"), _headers(b"'self'")
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
"""By the last step of its path: where a part lies, and its type. Nothing else is served."""


class PageRoutes:
    """The routes of the live page."""

    async def page(self, request: Request, _body: BodyReader) -> Reply:
        """GET /: the page.

        Below a prefix it says so to the browser, which may have asked without the slash at the end:
        of proxies that strip the prefix nothing tells.
        """
        page, _ = packaged_file(f"{_FOLDER}/index.html")
        prefix = prefix_of(request)
        if not prefix:
            return 200, _HEADERS, page
        base = f'<base href="{html.escape(prefix)}/">'.encode()
        return 200, _HEADERS_WITH_BASE, page.replace(_HEAD, _HEAD + base, 1)

    async def part(self, request: Request, _body: BodyReader) -> Reply:
        """GET /page/{part}: what it consists of."""
        known = PARTS.get(request.path_params["part"])
        if known is None:
            return problem(NO_ROUTE, "the page has no such part", request.scope["path"])
        path, content_type = known
        return file_reply(request, f"{_FOLDER}/{path}", content_type)
