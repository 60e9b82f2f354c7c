"""Search: what a query string asks for, and how hits, counts and completions are told."""

import base64
import binascii
import time
import zlib
from decimal import Decimal
from typing import Annotated, NamedTuple
from urllib.parse import urlencode
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
    SuggestionOut,
    SuggestionsOut,
)
from polyglot_persistence.api.web.bodies import BodyReader
from polyglot_persistence.api.web.endpoint import own_path
from polyglot_persistence.api.web.queries import parse_count, parse_flag, parse_moment
from polyglot_persistence.api.web.replies import Reply, json_reply
from polyglot_persistence.domain.order import CENT, parse_amount, to_micros
from polyglot_persistence.domain.search.query import Bounds, Facets, Position, SearchQuery, Sort
from polyglot_persistence.domain.search.terms import parse_query
from polyglot_persistence.errors import InvalidError, MalformedError
from polyglot_persistence.flows.projections.search import Page, SearchFlow

QUERY_CHARACTERS_MAX = 200
"""As long as a product name: a longer query cannot match better."""
HITS = 20
HITS_MAX = 100
SUGGESTIONS = 10
SUGGESTIONS_MAX = 20


class SearchRoutes:
    """The routes that read the search index."""

    def __init__(self, search: SearchFlow) -> None:
        self._search = search

    async def search(self, request: Request, _body: BodyReader) -> Reply:
        """GET /api/search: the best matches for a text, or orders within bounds."""
        query = parse_search(request)
        started = time.perf_counter()
        page = await self._search.search(query)
        took_ms = round((time.perf_counter() - started) * 1_000, 3)
        out = _search_out(page, took_ms)
        if page.end is None:
            return json_reply(200, out)
        out.next_cursor = _cursor(query, page.end)
        parameters = {**request.query_params, "cursor": out.next_cursor}
        out.next = f"{own_path(request)}?{urlencode(parameters)}"
        return json_reply(200, out, ((b"link", f'<{out.next}>; rel="next"'.encode()),))

    async def suggest(self, request: Request, _body: BodyReader) -> Reply:
        """GET /api/search/suggest: names that complete a text."""
        text = _text(request)
        if text is None:
            raise MalformedError("the query parameter q is missing or empty")
        names_max = parse_count(request, "limit", otherwise=SUGGESTIONS, cap=SUGGESTIONS_MAX)
        started = time.perf_counter()
        found = await self._search.suggest(text, names_max)
        took_ms = round((time.perf_counter() - started) * 1_000, 3)
        return json_reply(200, SuggestionsOut([SuggestionOut(*one) for one in found], took_ms))


def parse_search(request: Request) -> SearchQuery:
    """Return what a query string asks for.

    Raises:
        MalformedError: it breaks a rule.
    """
    text = _text(request)
    bounds = _bounds(request)
    named = request.query_params.get("sort")
    if text is None and named is None and bounds == Bounds():
        raise MalformedError("the query parameter q is missing or empty, and so are all others")
    query = SearchQuery(
        None if text is None else parse_query(text),
        parse_count(request, "limit", otherwise=HITS, cap=HITS_MAX),
        _sort(named, text),
        bounds,
        facets=parse_flag(request, "facets"),
    )
    cursor = request.query_params.get("cursor")
    return query if cursor is None else query._replace(after=_parse_cursor(query, cursor))


def _text(request: Request) -> str | None:
    text = request.query_params.get("q", "").strip()
    if len(text) > QUERY_CHARACTERS_MAX:
        raise MalformedError(f"the query parameter q may have {QUERY_CHARACTERS_MAX} characters")
    return text or None


def _sort(named: str | None, text: str | None) -> Sort:
    if named is None:
        return Sort.NEWEST if text is None else Sort.RELEVANCE
    try:
        sort = Sort(named)
    except ValueError:
        names = ", ".join(one.value for one in Sort)
        raise MalformedError(f"the query parameter sort must be one of {names}") from None
    if sort is Sort.RELEVANCE and text is None:
        raise MalformedError("the query parameter sort can be relevance only if q is given")
    return sort


def _bounds(request: Request) -> Bounds:
    first, end = parse_moment(request, "from"), parse_moment(request, "to")
    low, high = _amount(request, "min"), _amount(request, "max")
    if first is not None and end is not None and first >= end:
        raise MalformedError("the query parameter from must be before to")
    if low is not None and high is not None and low > high:
        raise MalformedError("the query parameter min must not be above max")
    return Bounds(
        None if first is None else to_micros(first),
        None if end is None else to_micros(end) - 1,
        low,
        high,
    )


def _amount(request: Request, name: str) -> int | None:
    """Return an amount in cents."""
    text = request.query_params.get(name)
    if text is None:
        return None
    try:
        return int(parse_amount(text, name).scaleb(2))
    except InvalidError as error:
        rule = error.violations[0].detail
        raise MalformedError(f"the query parameter {name} {rule}") from None


_Key = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class _Cursor(NamedTuple):
    question: int
    keys: list[_Key]
    order_id: UUID


_KEYS = {Sort.RELEVANCE: 2, Sort.NEWEST: 1, Sort.AMOUNT: 2}


def _question(query: SearchQuery) -> int:
    """Return what tells one question from another; pages and their sizes make no difference."""
    return zlib.crc32(repr((query.words, query.sort, query.bounds)).encode())


def _cursor(query: SearchQuery, end: Position) -> str:
    place = msgspec.msgpack.encode(_Cursor(_question(query), list(end.keys), end.order_id))
    return base64.urlsafe_b64encode(place).decode().rstrip("=")


def _parse_cursor(query: SearchQuery, text: str) -> Position:
    try:
        place = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        cursor = msgspec.msgpack.decode(place, type=_Cursor)
    except (binascii.Error, ValueError):
        raise MalformedError("this cursor was not given out by this API") from None
    if cursor.question != _question(query):
        raise MalformedError("this cursor belongs to another question: q, sort or bounds differ")
    never_given_out = query.sort is not Sort.NEWEST and cursor.keys[:1] < [0]  # ranks and amounts
    if len(cursor.keys) != _KEYS[query.sort] or never_given_out:
        raise MalformedError("this cursor was not given out by this API")
    return Position(tuple(cursor.keys), cursor.order_id)


def _search_out(page: Page, took_ms: float) -> SearchOut:
    return SearchOut(
        page.total,
        "exact" if page.total_is_exact else "at_least",
        [
            HitOut(
                found.order.id,
                found.order.product_name,
                found.highlighted,
                found.order.amount,
                found.order.created_at,
                found.score,
            )
            for found in page.found
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
