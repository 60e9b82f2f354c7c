"""Serves the live page and its parts, under a policy that allows nothing from elsewhere."""

from starlette.requests import Request

from polyglot_persistence.api.web.bodies import BodyReader
from polyglot_persistence.api.web.problems import NO_ROUTE, problem
from polyglot_persistence.api.web.replies import COMMON_HEADERS, Headers, Reply
from polyglot_persistence.api.web.static_files import file_reply, packaged_file

_FOLDER = "dashboard/static"
_HEADERS: Headers = (
    (b"content-type", b"text/html; charset=utf-8"),
    *COMMON_HEADERS,
    (
        b"content-security-policy",
        b"default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
    (b"referrer-policy", b"same-origin"),
)

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

    async def page(self, _request: Request, _body: BodyReader) -> Reply:
        """GET /: the page."""
        return 200, _HEADERS, packaged_file(f"{_FOLDER}/index.html")[0]

    async def part(self, request: Request, _body: BodyReader) -> Reply:
        """GET /page/{part}: what it consists of."""
        known = PARTS.get(request.path_params["part"])
        if known is None:
            return problem(NO_ROUTE, "the page has no part of this name", request.scope["path"])
        path, content_type = known
        return file_reply(request, f"{_FOLDER}/{path}", content_type)
