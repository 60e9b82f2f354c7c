"""The search port over Elasticsearch: a versioned index behind an alias.

Invariant: an index is removed only if its mapping names this project as the owner.
Invariant: an index of another form is neither read nor written. One of a newer form is left alone:
otherwise an old and a new process would replace each other's in turns.
Invariant: a method's deadline covers all of its requests together.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

from polyglot_persistence.adapters.elasticsearch import answers
from polyglot_persistence.adapters.elasticsearch.answers import SearchAnswer
from polyglot_persistence.adapters.elasticsearch.bulk import Bulks, Item
from polyglot_persistence.adapters.elasticsearch.connection import (
    Connection,
    Credentials,
    MissingIndexError,
)
from polyglot_persistence.adapters.elasticsearch.documents import (
    FORM,
    OWNER,
    READ_FORM_MIN,
    bulk_item,
    order_of,
    removal_item,
)
from polyglot_persistence.adapters.elasticsearch.query import (
    exact_page_of,
    facets_in,
    is_counted_all,
    most_ordered,
    names_in,
    page_of,
    summary_of,
    words_of,
)
from polyglot_persistence.adapters.elasticsearch.searches import COPY, Searches
from polyglot_persistence.domain.search.matching import rank_of
from polyglot_persistence.domain.search.query import (
    COUNTED_ORDERS_MAX,
    Facets,
    NameOrders,
    SearchQuery,
)
from polyglot_persistence.domain.search.terms import QueryWord
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.ports.orders import StoredOrder
from polyglot_persistence.ports.search import Hit, IndexFailure, SearchResult
from polyglot_persistence.ports.state import StoreState, StoreWarning
from polyglot_persistence.telemetry import logger

_log = logger("search")
A = TypeVar("A")
T = TypeVar("T")

REMEDY = "start a worker, which builds it anew, or run polyglot search rebuild"

NAMED_ORDERS_MAX = 50_000
"""A single letter begins the names of a third of all orders; each order costs some 20 ns."""

HITS_PER_TURN = 10
"""Hits ranked before other requests run: a name of a hundred words takes 1 ms."""

FORM_TRUSTED_SECONDS = 0.5
"""How long reads trust the last look at the index behind the alias."""


class ElasticsearchIndex:
    """The index behind `alias`. Connects when first used."""

    def __init__(
        self,
        url: str,
        *,
        alias: str,
        credentials: Credentials,
        search_timeout_seconds: float,
        index_timeout_seconds: float,
    ) -> None:
        self.connection = Connection(url, credentials)
        self.alias = alias
        self.search_timeout_seconds = search_timeout_seconds
        self.index_timeout_seconds = index_timeout_seconds
        self._bulks = Bulks(self.connection, alias)
        self._searches = Searches(self.connection, alias)
        self._counts = Searches(self.connection, alias)  # of all matches: they take longer
        self._looking = asyncio.Lock()
        self._looked_at = float("-inf")

    async def index(self, orders: Sequence[StoredOrder]) -> Sequence[IndexFailure]:
        """Add or replace the documents, fsynced by the cluster before it answers.

        Raises:
            UnavailableError: any of them may be missing.
        """
        failures = []
        items = []
        indexed_at = datetime.now(UTC)
        for one, *_ in orders:
            try:
                items.append(Item(one.id, bulk_item(one, indexed_at)))
            except ValueError as error:
                failures.append(IndexFailure(one.id, str(error)))
        if not items:
            return failures
        deadline = _after(self.index_timeout_seconds)
        await self._look(deadline)
        return [*failures, *await self._bulks.send(items, deadline)]

    async def search(self, query: SearchQuery) -> SearchResult:
        """Return a page of the matches; no hits for an empty tuple of words."""
        deadline = _after(self.search_timeout_seconds)
        await self._trust(deadline)
        if query.words == ():
            return SearchResult(0, [], facets=Facets([], [], []) if query.facets else None)
        searches = self._counts if query.facets else self._searches
        summaries = [summary_of(query)] if is_counted_all(query) else []
        exact = exact_page_of(query)
        first = exact or page_of(query)
        page, *counted = await searches.ask(first, *summaries, deadline=deadline)
        if exact is not None and len(page.hits.hits) < query.hits_max:
            [page] = await searches.ask(page_of(query), deadline=deadline)
        elif exact is not None and not counted and _total(page) <= COUNTED_ORDERS_MAX:
            counted = [*await searches.ask(summary_of(query), deadline=deadline)]
        [summary] = counted or [page]
        hits = []
        for place, found in enumerate(page.hits.hits, 1):
            hits.append(_hit(found, query))
            if place % HITS_PER_TURN == 0:
                await asyncio.sleep(0)
        total = max(_total(summary), len(hits))  # an order may become visible between the two
        counted_max = total if is_counted_all(query) else COUNTED_ORDERS_MAX
        return SearchResult(
            min(total, counted_max),
            hits,
            _read(facets_in, summary.aggregations) if query.facets else None,
            total_is_exact=total <= counted_max,
        )

    async def names(self, words: Sequence[QueryWord], names_max: int) -> Sequence[NameOrders]:
        """Return matching names; above `NAMED_ORDERS_MAX` orders only the first are counted."""
        deadline = _after(self.search_timeout_seconds)
        await self._trust(deadline)
        if not words:
            return []
        search = {
            "query": {"bool": {"filter": words_of(words)}},
            "size": 0,
            "track_total_hits": False,
            "terminate_after": NAMED_ORDERS_MAX,
            "aggregations": {"names": most_ordered(names_max)},
        }
        [answer] = await self._searches.ask(search, deadline=deadline)
        return _read(lambda found: names_in(found["names"]), answer.aggregations)

    async def indexed_at(self, order_id: UUID) -> datetime | None:
        deadline = _after(self.search_timeout_seconds)
        await self._trust(deadline)
        by_id = {"ids": {"values": [str(order_id)]}}
        found = await self._search(deadline, query=by_id, size=1, source=["indexed_at"])
        for hit in found.hits:
            return datetime.fromisoformat(hit.source["indexed_at"])
        return None

    async def name(self) -> str | None:
        """Return the name of the index behind the alias; None if it is unusable.

        Raises:
            UnavailableError: it cannot be determined now, the form is newer, or an index has the
                alias's name.
        """
        try:
            return next(iter(await self._look(_after(self.search_timeout_seconds))))
        except MissingIndexError as error:
            _log.debug("index_missing", error=str(error))
            return None

    async def behind_alias(self) -> Mapping[str, answers.Meta]:
        """Return the metadata of the indexes behind the alias, by name."""
        return await self._behind_alias(_after(self.search_timeout_seconds))

    async def remove(self, ids: Sequence[UUID]) -> None:
        """Remove documents, fsynced by the cluster before it answers."""
        if ids:
            deadline = _after(self.index_timeout_seconds)
            await self._look(deadline)
            items = [Item(order_id, removal_item(order_id)) for order_id in ids]
            await self._bulks.send(items, deadline)

    async def read(self, **request: Any) -> answers.SearchAnswer:
        """Return the response to a search request, over the whole index or not at all.

        Uses the deadline of an index batch.
        """
        deadline = _after(self.index_timeout_seconds)
        await self._trust(deadline)
        return await self._request(deadline, **request)

    async def ping(self) -> StoreState:
        """Return the cluster's version.

        Raises:
            UnavailableError: the index is missing, or a part of it has no node (red).
        """
        deadline = _after(self.search_timeout_seconds)
        await self._look(deadline, to_read=True)
        info = await self.connection.call(
            lambda client: client.info(), answers.InfoAnswer, deadline
        )
        health = await self.connection.call(
            lambda client: client.cluster.health(index=self.alias), answers.HealthAnswer, deadline
        )
        if health.status == "red":
            raise UnavailableError("Elasticsearch: the index is red: a part of it has no node")
        settings = await self.connection.call(
            lambda client: client.indices.get_settings(index=self.alias),
            dict[str, answers.SettingsAnswer],
            deadline,
        )
        warnings = [
            StoreWarning(
                f"{name}: index.translog.durability is async: a crash may lose documents for ever",
                "set it to request",
            )
            for name, of_index in settings.items()
            if of_index.settings.index.translog.durability != "request"
        ]
        warnings += _warnings_of_copies(health)
        return StoreState(f"Elasticsearch {info.version.number}", tuple(warnings))

    async def close(self) -> None:
        """Close every connection."""
        await self._searches.close()
        await self._counts.close()
        await self.connection.close()

    async def _search(self, deadline: float, **request: Any) -> answers.Hits:
        return (await self._request(deadline, **request)).hits

    async def _request(self, deadline: float, **request: Any) -> answers.SearchAnswer:
        return await self.connection.call(
            lambda client: client.search(
                index=self.alias,
                allow_partial_search_results=False,  # the whole index, or an error
                preference=COPY,
                **request,
            ),
            answers.SearchAnswer,
            deadline,
        )

    async def _trust(self, deadline: float) -> None:
        if time.monotonic() - self._looked_at <= FORM_TRUSTED_SECONDS:
            return
        try:
            async with asyncio.timeout_at(deadline):
                await self._looking.acquire()
        except TimeoutError as error:
            raise UnavailableError("Elasticsearch: no answer in time") from error
        try:  # one look serves all callers that arrived meanwhile
            if time.monotonic() - self._looked_at > FORM_TRUSTED_SECONDS:
                await self._look(deadline, to_read=True)
        finally:
            self._looking.release()

    async def _look(self, deadline: float, *, to_read: bool = False) -> Mapping[str, answers.Meta]:
        """Return the indexes behind the alias of this form; to read, also of a readable older one.

        Raises:
            MissingIndexError: there is none.
            UnavailableError: one has a newer form, or an index has the alias's name.
        """
        behind = await self._behind_alias(deadline)
        forms = {meta.form if meta.owner == OWNER else None for meta in behind.values()}
        if any(isinstance(form, int) and form > FORM for form in forms):
            raise UnavailableError(
                f"Elasticsearch: {', '.join(behind)} was made by a newer version (ours is {FORM})",
                remedy="run the newer version of this program",
            )
        if self.alias in behind:
            raise UnavailableError(
                f"Elasticsearch: an index is called {self.alias}, as our alias has to be",
                remedy="have its owner delete it: it may be somebody's",
            )
        form_min = READ_FORM_MIN if to_read else FORM
        if not forms or not all(isinstance(form, int) and form >= form_min for form in forms):
            raise MissingIndexError(
                f"Elasticsearch: {self.alias} leads to {', '.join(behind) or 'nothing'}, "
                f"of form {', '.join(map(str, forms)) or 'none'}, wanted is {FORM}",
                remedy=REMEDY,
            )
        self._looked_at = time.monotonic()
        return behind

    async def _behind_alias(self, deadline: float) -> Mapping[str, answers.Meta]:
        """Return the metadata of the indexes behind the alias, by name."""
        try:
            behind = await self.connection.call(
                lambda client: client.indices.get_mapping(index=self.alias),
                dict[str, answers.IndexMapping],
                deadline,
            )
        except MissingIndexError:
            return {}
        return {name: of_index.mappings.meta for name, of_index in behind.items()}


def _warnings_of_copies(health: answers.HealthAnswer) -> Sequence[StoreWarning]:
    if health.status == "yellow":
        detail = "the index is yellow: some part of it has no second copy"
        return [StoreWarning(detail, "start the missing node; Elasticsearch makes the copy itself")]
    if health.number_of_data_nodes > 1 and health.active_shards == health.active_primary_shards:
        detail = f"the index has one copy, on {health.number_of_data_nodes} nodes"
        return [StoreWarning(detail, "start a worker: it has Elasticsearch make a second one")]
    return []


def _total(answer: SearchAnswer) -> int:
    """Return the number of matches; if counting stopped, one more than the count."""
    total = answer.hits.total
    if total is None:
        raise UnavailableError("Elasticsearch: not its answer: hits without a total")
    return total.value + (total.relation != "eq")


def _hit(found: answers.Found, query: SearchQuery) -> Hit:
    if found.fields is None:
        raise UnavailableError("Elasticsearch: not its answer: a hit without columns")
    order = _read(order_of, found.fields)
    return Hit(order, rank_of(order.product_name, query.words) if query.words else 0)


def _read(read: Callable[[A], T], answered: A) -> T:
    """Read a part of an answer whose form the index and its documents decide.

    Raises:
        UnavailableError: it has another form: somebody has edited a document, or a proxy an answer.
    """
    try:
        return read(answered)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UnavailableError(f"Elasticsearch: not its answer: {error!r}") from error


def _after(seconds: float) -> float:
    """Return the deadline this many seconds from now, on the event loop's clock."""
    return asyncio.get_running_loop().time() + seconds
