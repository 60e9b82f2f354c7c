"""The `RebuildTarget` port: a second alias leads to the index being built.

Invariant: an index is removed only if its mapping names this project as the owner, for this alias,
and if no alias leads to it.
"""

import asyncio
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from typing import Any

from polyglot_persistence.adapters.elasticsearch import answers
from polyglot_persistence.adapters.elasticsearch.client import AsyncElasticsearch
from polyglot_persistence.adapters.elasticsearch.connection import MissingIndexError
from polyglot_persistence.adapters.elasticsearch.contents import ElasticsearchContents
from polyglot_persistence.adapters.elasticsearch.documents import (
    COPIES,
    FORM,
    OWNER,
    SETTINGS,
    mappings_of,
)
from polyglot_persistence.adapters.elasticsearch.index import ElasticsearchIndex
from polyglot_persistence.domain.order import new_id
from polyglot_persistence.telemetry import logger

_log = logger("search")

# No search uses it yet: it is refreshed only before it is checked.
_WHILE_BUILT = {**SETTINGS, "refresh_interval": "-1"}


class ElasticsearchTarget:
    """See `RebuildTarget`. `building` is an index of its own alias, on the same cluster."""

    def __init__(
        self, current: ElasticsearchIndex, building: ElasticsearchIndex, *, shards: int
    ) -> None:
        self._shards = shards
        self.building = building
        self.contents = ElasticsearchContents(building)
        self._current = current

    async def current_name(self) -> str | None:
        return await self._current.name()

    async def building_name(self) -> str | None:
        return await self.building.name()

    async def lost_parts(self) -> Collection[str]:
        """A shard that is being recovered from a node's disk is not lost."""
        current = await self._current.behind_alias()
        names = sorted({*current, *await self.building.behind_alias()})
        if not names:
            return []
        health = await self._ask(
            lambda client: client.cluster.health(index=names, level="indices", timeout="1s"),
            answers.IndexesHealthAnswer,
        )
        return [
            name
            for name, one in health.indices.items()
            if one.status == "red" and not one.initializing_shards
        ]

    async def adopt_settings(self) -> None:
        """Gives an index of an earlier version its second copy, unless somebody set the copies."""
        settings = await self._ask(
            lambda client: client.indices.get_settings(
                index=self._current.alias, ignore_unavailable=True
            ),
            dict[str, answers.SettingsAnswer],
        )
        for name, meta in (await self._current.behind_alias()).items():
            index = settings[name].settings.index if name in settings else None
            if meta.owner != OWNER or index is None:
                continue
            if index.number_of_replicas == "0" and index.auto_expand_replicas == "false":
                _log.info("index_copies_added", index=name)
                await self._call(
                    lambda client, name=name: client.indices.put_settings(  # type: ignore[misc]
                        index=name, settings=COPIES
                    )
                )

    async def begin(self) -> str:
        """Also lifts a block that a crash left on the current index."""
        left = await self.building.behind_alias()
        if left:
            await self._move([_removal(name, self.building.alias) for name in left])
        await self._block(await self._current.behind_alias(), block=False)
        await self.clean_up()
        name = f"{self._current.alias}-{FORM}-{new_id().hex[-12:]}"
        await self._call(
            lambda client: client.indices.create(
                index=name,
                settings={**_WHILE_BUILT, "number_of_shards": self._shards},
                mappings=mappings_of(self._current.alias),
                aliases={self.building.alias: {}},
            ),
            is_repeatable=False,
        )
        return name

    async def show(self) -> None:
        await self._call(lambda client: client.indices.refresh(index=self.building.alias))

    @asynccontextmanager
    async def frozen(self) -> AsyncIterator[None]:
        """The block waits for running writes."""
        names = await self._current.behind_alias()
        await self._block(names, block=True)
        try:
            yield
        finally:
            still = [name for name in await self._current.behind_alias() if name in names]
            await self._block(still, block=False)

    async def swap(self) -> None:
        name = await self.building.name()
        if name is None:
            raise MissingIndexError("Elasticsearch: the index that was built is gone")
        await self._call(
            lambda client: client.indices.put_settings(
                index=name, settings={"refresh_interval": SETTINGS["refresh_interval"]}
            )
        )
        old = {
            other: meta
            for other, meta in (await self._current.behind_alias()).items()
            if other != name
        }
        await self._move(
            [
                _removal(name, self.building.alias),
                *(_given_up(other, meta, self._current.alias) for other, meta in old.items()),
                {"add": {"index": name, "alias": self._current.alias}},
            ]
        )
        _log.info("index_swapped", index=name, replaced=",".join(old))

    async def release(self) -> None:
        """Nothing to do: any process may write to an alias."""

    async def clean_up(self) -> None:
        pattern = f"{self._current.alias}-*"
        mappings = await self._ask(
            lambda client: client.indices.get_mapping(index=pattern, allow_no_indices=True),
            dict[str, answers.IndexMapping],
        )
        aliases = await self._ask(
            lambda client: client.indices.get_alias(index=pattern, allow_no_indices=True),
            dict[str, answers.IndexAliases],
        )
        for name, of_index in mappings.items():
            meta = of_index.mappings.meta
            ours = (meta.owner, meta.alias) == (OWNER, self._current.alias)
            if not ours or name not in aliases or aliases[name].aliases:
                continue
            _log.info("index_removed", index=name)
            await self._call(
                lambda client, name=name: client.indices.delete(  # type: ignore[misc]
                    index=name, ignore_unavailable=True
                )
            )

    async def _block(self, names: Iterable[str], *, block: bool) -> None:
        for name in names:
            if block:
                await self._call(
                    lambda client, name=name: client.indices.add_block(  # type: ignore[misc]
                        index=name, block="write"
                    )
                )
            else:
                await self._call(
                    lambda client, name=name: client.indices.put_settings(  # type: ignore[misc]
                        index=name, settings={"index.blocks.write": None}
                    )
                )

    async def _move(self, actions: Sequence[Mapping[str, Any]]) -> None:
        await self._call(
            lambda client: client.indices.update_aliases(actions=actions), is_repeatable=False
        )

    async def _call(
        self,
        request: Callable[[AsyncElasticsearch], Awaitable[Any]],
        *,
        is_repeatable: bool = True,
    ) -> None:
        await self._ask(request, answers.Done, is_repeatable=is_repeatable)

    async def _ask(
        self,
        request: Callable[[AsyncElasticsearch], Awaitable[Any]],
        answer: type[Any],
        *,
        is_repeatable: bool = True,
    ) -> Any:
        deadline = asyncio.get_running_loop().time() + self._current.index_timeout_seconds
        return await self._current.connection.call(
            request, answer, deadline, is_repeatable=is_repeatable
        )


def _given_up(index: str, meta: answers.Meta, alias: str) -> Mapping[str, Any]:
    """Return the action on a replaced index: it is removed later if its mapping proves it ours.

    The first indexes of version 0.1 do not name their alias.
    """
    if meta.owner == OWNER and meta.alias != alias:
        return {"remove_index": {"index": index}}
    return _removal(index, alias)


def _removal(index: str, alias: str) -> Mapping[str, Any]:
    return {"remove": {"index": index, "alias": alias}}
