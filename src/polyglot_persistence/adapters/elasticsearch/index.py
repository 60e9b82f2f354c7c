"""The search port over Elasticsearch: a versioned index behind an alias.

Invariant: an index is removed only if its mapping says that this project made it.
Invariant: nothing is read from or written to an index of another form.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from polyglot_persistence.adapters.elasticsearch import answers
from polyglot_persistence.adapters.elasticsearch.bulk import Bulks, Item
from polyglot_persistence.adapters.elasticsearch.connection import (
    Connection,
    Credentials,
    MissingIndexError,
    RefusedError,
)
from polyglot_persistence.adapters.elasticsearch.documents import (
    FORM,
    MAPPINGS,
    OWNER,
    SETTINGS,
    SHOWN,
    bulk_item,
    order,
)
from polyglot_persistence.adapters.elasticsearch.query import SORT, query_of
from polyglot_persistence.domain.text import Ranking, parse_query
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.ports import Hit, IndexFailure, SearchResult, StoredOrder, StoreState
from polyglot_persistence.telemetry import logger

_log = logger("search")

FORM_TRUSTED_SECONDS = 0.5
"""How long the index behind the alias is taken to be the one last looked at, by reads."""


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
        self._connection = Connection(url, credentials)
        self._alias = alias
        self._search_timeout_seconds = search_timeout_seconds
        self._index_timeout_seconds = index_timeout_seconds
        self._bulks = Bulks(self._connection, alias, timeout_seconds=index_timeout_seconds)
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
        try:
            async with asyncio.timeout(self._index_timeout_seconds):
                await self._look(self._index_timeout_seconds)
                return [*failures, *await self._bulks.send(items)]
        except TimeoutError as error:
            limit = self._index_timeout_seconds
            raise UnavailableError(f"Elasticsearch: not all taken within {limit} s") from error

    async def search(self, query: str, hits_max: int) -> SearchResult:
        """Return the best matches; no hits if the query has no word."""
        words = parse_query(query)
        await self._trust()
        if not words:
            return SearchResult(0, [])
        found = await self._search(
            query=query_of(words), sort=SORT, size=hits_max, source=SHOWN, track_total_hits=True
        )
        ranking = Ranking(len(words))
        hits = [Hit(order(hit.source), ranking.score(hit.score or 0)) for hit in found.hits]
        return SearchResult(found.total.value, hits)

    async def indexed_at(self, order_id: UUID) -> datetime | None:
        """Return when the order was indexed if a search can find it now."""
        await self._trust()
        found = await self._search(
            query={"ids": {"values": [str(order_id)]}}, size=1, source=["indexed_at"]
        )
        for hit in found.hits:
            return datetime.fromisoformat(hit.source["indexed_at"])
        return None

    async def count(self) -> int:
        """Return how many orders a search can find."""
        await self._trust()
        answer = await self._connection.call(
            lambda client: client.count(index=self._alias),
            answers.CountAnswer,
            self._search_timeout_seconds,
        )
        if answer.shards.failed:
            raise UnavailableError("Elasticsearch: a part of the index does not answer")
        return answer.count

    async def exists(self) -> bool:
        """Return whether the alias leads to an index of this form.

        Raises:
            UnavailableError: it cannot be told for now.
        """
        try:
            await self._look(self._search_timeout_seconds)
        except MissingIndexError as error:
            _log.warning("index_missing", error=str(error))
            return False
        return True

    async def ensure(self) -> bool:
        """Create the index, empty, if it is missing or of another form; return whether it was.

        Of several processes at once, one creates. The indexes of other forms that this project made
        are deleted; from others' the alias is taken away.

        Raises:
            UnavailableError: also if an index has the alias's name: it may be somebody's.
        """
        if await self.exists():
            return False
        others = await self._behind_alias(self._index_timeout_seconds)
        name = f"{self._alias}-{FORM}"
        created = await self._create(name)
        for other, meta in others.items():
            if other != name:
                await self._give_up(other, meta)
        if created:
            _log.warning("index_created", index=name)
        return created

    async def ping(self) -> StoreState:
        """Return the cluster's version.

        Raises:
            UnavailableError: the index is missing, or a part of it has no node (red).
        """
        timeout_seconds = self._search_timeout_seconds
        await self._look(timeout_seconds)
        info = await self._connection.call(
            lambda client: client.info(), answers.InfoAnswer, timeout_seconds
        )
        health = await self._connection.call(
            lambda client: client.cluster.health(index=self._alias),
            answers.HealthAnswer,
            timeout_seconds,
        )
        if health.status == "red":
            raise UnavailableError("Elasticsearch: the index is red: a part of it has no node")
        settings = await self._connection.call(
            lambda client: client.indices.get_settings(index=self._alias),
            dict[str, answers.SettingsAnswer],
            timeout_seconds,
        )
        warnings = [
            f"{name}: index.translog.durability is async: a crash may lose documents for ever; "
            "set it to request"
            for name, of_index in settings.items()
            if of_index.settings.index.translog.durability != "request"
        ]
        return StoreState(f"Elasticsearch {info.version.number}", tuple(warnings))

    async def close(self) -> None:
        """Close every connection."""
        await self._connection.close()

    async def _search(self, **request: Any) -> answers.Hits:
        answer = await self._connection.call(
            lambda client: client.search(
                index=self._alias,
                allow_partial_search_results=False,  # all of the index, or an error
                **request,
            ),
            answers.SearchAnswer,
            self._search_timeout_seconds,
        )
        return answer.hits

    async def _trust(self) -> None:
        if time.monotonic() - self._looked_at > FORM_TRUSTED_SECONDS:
            await self._look(self._search_timeout_seconds)

    async def _look(self, timeout_seconds: float) -> None:
        """Return if the alias leads to indexes of this form, and to nothing else.

        Raises:
            MissingIndexError: it does not.
        """
        behind = await self._behind_alias(timeout_seconds)
        forms = {meta.form if meta.owner == OWNER else None for meta in behind.values()}
        if forms != {FORM} or self._alias in behind:
            raise MissingIndexError(
                f"Elasticsearch: {self._alias} leads to {', '.join(behind) or 'nothing'}, "
                f"of form {', '.join(map(str, forms)) or 'none'}; wanted is {FORM}"
            )
        self._looked_at = time.monotonic()

    async def _behind_alias(self, timeout_seconds: float) -> Mapping[str, answers.Meta]:
        """Return what the indexes that the alias leads to say of themselves, by name."""
        try:
            behind = await self._connection.call(
                lambda client: client.indices.get_mapping(index=self._alias),
                dict[str, answers.IndexMapping],
                timeout_seconds,
            )
        except MissingIndexError:
            return {}
        return {name: of_index.mappings.meta for name, of_index in behind.items()}

    async def _create(self, name: str) -> bool:
        timeout_seconds = self._index_timeout_seconds
        aliases = {self._alias: {"is_write_index": True}}
        try:
            await self._connection.call(
                lambda client: client.indices.create(
                    index=name, settings=SETTINGS, mappings=MAPPINGS, aliases=aliases
                ),
                answers.Done,
                timeout_seconds,
            )
        except RefusedError as error:
            if error.kind != "resource_already_exists_exception":
                raise
        else:
            return True
        await self._connection.call(  # another process has just made it, or the alias was lost
            lambda client: client.indices.put_alias(
                index=name, name=self._alias, is_write_index=True
            ),
            answers.Done,
            timeout_seconds,
        )
        return False

    async def _give_up(self, name: str, meta: answers.Meta) -> None:
        """Delete an index of ours; take the alias away from somebody else's."""
        ours = meta.owner == OWNER
        _log.warning("index_given_up", index=name, deleted=ours)
        try:
            await self._connection.call(
                lambda client: (
                    client.indices.delete(index=name)
                    if ours
                    else client.indices.delete_alias(index=name, name=self._alias)
                ),
                answers.Done,
                self._index_timeout_seconds,
            )
        except MissingIndexError:
            return  # another process was faster
