"""Handlers of search and suggestions: cursors and the encoding of answers."""

import base64
import binascii
import time
import zlib
from decimal import Decimal
from typing import Annotated, NamedTuple
from uuid import UUID

import msgspec
from starlette.requests import Request

from polyglot_persistence.api.search.schemas import (
    DayOrdersOut,
    FacetsOut,
    HitOut,
    NameOrdersOut,
    PriceRangeOut,
    SearchOut,
    SearchParameters,
    SuggestionOut,
    SuggestionsOut,
    SuggestParameters,
)
from polyglot_persistence.api.web.bodies import BodyReader
from polyglot_persistence.api.web.endpoint import next_page
from polyglot_persistence.api.web.queries import CURSOR_RULE
from polyglot_persistence.api.web.replies import Reply, json_reply, next_link
from polyglot_persistence.domain.order import CENT
from polyglot_persistence.domain.search.query import Facets, Position, SearchQuery, Sort
from polyglot_persistence.errors import MalformedError
from polyglot_persistence.flows.projections.search import Page, SearchFlow


class SearchRoutes:
    """The routes that read the search index."""

    def __init__(self, search: SearchFlow) -> None:
        self._search = search

    async def search(self, request: Request, _body: BodyReader) -> Reply:
        """GET /api/search: the best matches for a text, or orders within bounds."""
        parameters = SearchParameters(request)
        query = parameters.first_page()
        if parameters.cursor is not None:
            query = query._replace(after=_parse_cursor(query, parameters.cursor))
        started = time.perf_counter()
        page = await self._search.search(query)
        took_ms = round((time.perf_counter() - started) * 1_000, 3)
        out = _search_out(page, took_ms)
        if page.end is None:
            return json_reply(200, out)
        out.next_cursor = _cursor(query, page.end)
        out.next = next_page(request, out.next_cursor)
        return json_reply(200, out, next_link(out.next))

    async def suggest(self, request: Request, _body: BodyReader) -> Reply:
        """GET /api/search/suggest: names that complete a text."""
        parameters = SuggestParameters(request)
        started = time.perf_counter()
        found = await self._search.suggest(parameters.text, parameters.limit)
        took_ms = round((time.perf_counter() - started) * 1_000, 3)
        return json_reply(200, SuggestionsOut([SuggestionOut(*one) for one in found], took_ms))


_Key = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class _Cursor(NamedTuple):
    question: int
    keys: list[_Key]
    order_id: UUID


_KEYS = {Sort.RELEVANCE: 2, Sort.NEWEST: 1, Sort.AMOUNT: 2}


def _question(query: SearchQuery) -> int:
    """Return a checksum of words, sort and bounds, which all pages of a search share."""
    return zlib.crc32(repr((query.words, query.sort, query.bounds)).encode())


def _cursor(query: SearchQuery, end: Position) -> str:
    place = msgspec.msgpack.encode(_Cursor(_question(query), list(end.keys), end.order_id))
    return base64.urlsafe_b64encode(place).decode().rstrip("=")


def _parse_cursor(query: SearchQuery, text: str) -> Position:
    try:
        place = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        cursor = msgspec.msgpack.decode(place, type=_Cursor)
    except (binascii.Error, ValueError):
        raise MalformedError(f"the query parameter cursor {CURSOR_RULE}") from None
    if cursor.question != _question(query):
        raise MalformedError(
            "the query parameter cursor belongs to another search: q, sort or bounds differ"
        )
    never_given_out = query.sort is not Sort.NEWEST and cursor.keys[:1] < [0]  # ranks and amounts
    if len(cursor.keys) != _KEYS[query.sort] or never_given_out:
        raise MalformedError(f"the query parameter cursor {CURSOR_RULE}")
    return Position(tuple(cursor.keys), cursor.order_id)


def _search_out(page: Page, took_ms: float) -> SearchOut:
    return SearchOut(
        page.total,
        "exact" if page.total_is_exact else "at_least",
        [
            HitOut(o.id, o.product_name, one.highlighted, o.amount, o.created_at, one.score)
            for one in page.found
            for o in (one.order,)
        ],
        page.did_you_mean,
        took_ms,
        None if page.facets is None else _facets_out(page.facets),
    )


def _facets_out(facets: Facets) -> FacetsOut:
    return FacetsOut(
        [
            PriceRangeOut(_money(low), None if high is None else _money(high), orders)
            for low, high, orders in facets.prices
        ],
        [DayOrdersOut(*one) for one in facets.days],
        [NameOrdersOut(*one) for one in facets.names],
    )


def _money(cents: int) -> Decimal:
    return Decimal(cents) * CENT
