"""Elasticsearch for the contract suite, on a real server.

Invariant: a test has an alias of its own, and removes only what begins with it.
"""

import json
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from elasticsearch import AsyncElasticsearch

from polyglot_persistence.adapters.elasticsearch.connection import Credentials
from polyglot_persistence.adapters.elasticsearch.contents import ElasticsearchContents
from polyglot_persistence.adapters.elasticsearch.documents import (
    MAPPINGS,
    OWNER,
    SETTINGS,
    bulk_item,
)
from polyglot_persistence.adapters.elasticsearch.index import ElasticsearchIndex
from polyglot_persistence.adapters.elasticsearch.rebuild import ElasticsearchTarget
from polyglot_persistence.config.addresses.elasticsearch import node_urls
from polyglot_persistence.domain.order import Order
from polyglot_persistence.ports.audit import SearchContents
from polyglot_persistence.ports.search import SearchIndex
from tests.support.orders import START
from tests.support.search_indexes import (
    INDEX_TIMEOUT_SECONDS,
    SEARCH_TIMEOUT_SECONDS,
    SearchEngine,
    words_of_version_1,
)


class Elasticsearch(SearchEngine):
    """An alias on a real server."""

    def __init__(self, url: str, *, shards: int = 1) -> None:
        self.url = url
        self.shards = shards
        self.alias = f"test-{uuid4().hex}"
        self.client = AsyncElasticsearch([*node_urls(url)], request_timeout=INDEX_TIMEOUT_SECONDS)
        self._processes: list[ElasticsearchIndex] = []

    def process(self) -> ElasticsearchIndex:
        """Return an index with connections of its own."""
        return self.process_at(self.url)

    def process_at(
        self,
        url: str,
        *,
        index_timeout_seconds: float = INDEX_TIMEOUT_SECONDS,
        alias: str | None = None,
    ) -> ElasticsearchIndex:
        """Return an index that is reached at another address."""
        index = ElasticsearchIndex(
            url,
            alias=alias or self.alias,
            credentials=Credentials(),
            search_timeout_seconds=SEARCH_TIMEOUT_SECONDS,
            index_timeout_seconds=index_timeout_seconds,
        )
        self._processes.append(index)
        return index

    async def names(self) -> list[str]:
        """Return the indexes that are there, behind the alias or not."""
        return sorted(await self.client.indices.get(index=f"{self.alias}*"))

    async def create(self, name: str, *, meta: dict[str, Any] | None, aliased: bool = True) -> None:
        """Create an index by hand."""
        await self.client.indices.create(
            index=name,
            mappings={"_meta": meta} if meta else {},
            settings={"number_of_replicas": 0},
            aliases={self.alias: {}} if aliased else {},
        )

    def contents(self) -> SearchContents:
        """Return what connections of its own show."""
        return ElasticsearchContents(self.process())

    async def end(self, index: SearchIndex) -> None:
        """Close its connections."""
        await next(one for one in self._processes if one is index).close()

    async def wipe(self) -> None:
        """Delete every index of the alias."""
        for name in await self.names():
            await self.client.indices.delete(index=name)

    async def make_foreign(self, form: int) -> None:
        """Put an index of another form in the place of ours."""
        await self.wipe()
        await self.create(f"{self.alias}-{form}", meta={**MAPPINGS["_meta"], "form": form})

    async def make_version_1(self, orders: Sequence[Order]) -> None:
        """Make it with the server's own client."""
        name = f"{self.alias}-5001"
        properties = {key: of for key, of in MAPPINGS["properties"].items() if key != "parts"}
        await self.client.indices.create(
            index=name,
            mappings={
                "dynamic": "strict",
                "_meta": {"owner": OWNER, "form": 5_001},
                "properties": properties,
            },
            settings=SETTINGS,
            aliases={self.alias: {}},
        )
        for order in orders:
            _, line, _ = bulk_item(order, START).split(b"\n")
            document = json.loads(line)
            del document["parts"]
            document["words"] = document["stems"] = words_of_version_1(order.product_name)
            await self.client.index(index=name, id=str(order.id), document=document)
        await self.client.indices.refresh(index=name)

    def target(self) -> ElasticsearchTarget:
        """Return an index behind the alias, and one behind the alias of what is built."""
        building = self.process_at(self.url, alias=f"{self.alias}-building")
        return ElasticsearchTarget(self.process(), building, shards=self.shards)

    async def parts(self) -> int:
        """Count the indexes."""
        return len(await self.names())

    async def close(self) -> None:
        """Remove what the test made and close every connection."""
        await self.wipe()
        await self.client.close()
        for index in self._processes:
            await index.close()
