"""Search."""

import time

from starlette.requests import Request

from polyglot_persistence.api.bodies import BodyReader
from polyglot_persistence.api.queries import parse_count
from polyglot_persistence.api.replies import Reply, json_reply
from polyglot_persistence.api.schemas import HitOut, SearchOut
from polyglot_persistence.errors import MalformedError
from polyglot_persistence.flows.search import SearchFlow

QUERY_CHARACTERS_MAX = 200
"""As long as a product name: a longer query cannot match better."""
HITS = 20
HITS_MAX = 100


class ReportRoutes:
    """The routes over the search index."""

    def __init__(self, search: SearchFlow) -> None:
        self._search = search

    async def search(self, request: Request, _body: BodyReader) -> Reply:
        """GET /api/search: the best matches for a text."""
        query = request.query_params.get("q", "").strip()
        if not query:
            raise MalformedError("the query parameter q is missing or empty")
        if len(query) > QUERY_CHARACTERS_MAX:
            raise MalformedError(
                f"the query parameter q may have {QUERY_CHARACTERS_MAX} characters"
            )
        hits_max = parse_count(request, "limit", otherwise=HITS, cap=HITS_MAX)
        started = time.perf_counter()
        result = await self._search.search(query, hits_max)
        took_ms = round((time.perf_counter() - started) * 1_000, 3)
        hits = [
            HitOut(
                hit.order.id,
                hit.order.product_name,
                hit.order.amount,
                hit.order.created_at,
                hit.score,
            )
            for hit in result.hits
        ]
        return json_reply(200, SearchOut(result.total, hits, took_ms))
