"""Search engines for the contract suite: one class an adapter, the same face for all.

A `SearchEngine` gives an index as several processes would have it, and does to what lies behind it
what can happen to it.
"""

import json
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import tantivy

from polyglot_persistence.adapters.tantivy import documents
from polyglot_persistence.adapters.tantivy.contents import TantivyContents
from polyglot_persistence.adapters.tantivy.index import TantivyIndex
from polyglot_persistence.adapters.tantivy.rebuild import TantivyTarget
from polyglot_persistence.domain.order import Order, new_id
from polyglot_persistence.domain.search.query import SearchQuery
from polyglot_persistence.domain.search.terms import parse_query
from polyglot_persistence.ports.audit import SearchContents
from polyglot_persistence.ports.orders import StoredOrder
from polyglot_persistence.ports.rebuild import RebuildTarget
from polyglot_persistence.ports.search import SearchIndex
from tests.support.addresses import ELASTICSEARCH, needs
from tests.support.eventually import eventually
from tests.support.orders import START

REAL_ENGINES = ["tantivy", pytest.param("elasticsearch", marks=needs(ELASTICSEARCH))]

SEARCH_TIMEOUT_SECONDS = 5.0
INDEX_TIMEOUT_SECONDS = 20.0

VISIBLE_SECONDS = 5.0
"""The port says about one; a busy machine is granted more."""


def asked(text: str, hits_max: int, **more: Any) -> SearchQuery:
    """Return the question for a text."""
    return SearchQuery(parse_query(text), hits_max, **more)


def words_of_version_1(name: str) -> str:
    """Return what version 0.1 indexed of a name of ASCII letters."""
    return " ".join(re.findall("[a-z]+", name.lower()))


async def made(engine: "SearchEngine") -> SearchIndex:
    """Return an empty index, as a rebuild of an empty record makes it."""
    target = engine.target()
    await target.begin()
    await target.swap()
    await target.clean_up()
    return engine.process()


async def found(index: SearchIndex) -> int:
    """Return how many orders a search finds."""
    return (await index.search(SearchQuery(None, 1))).total


async def visible(index: SearchIndex, orders: int) -> None:
    """Wait until the index finds so many orders."""

    async def attempt() -> None:
        assert await found(index) == orders

    await eventually(attempt, within_seconds=VISIBLE_SECONDS)


def row(name: str, second: float = 0, *, order_id: UUID | None = None) -> StoredOrder:
    """Return an order as the record has it, so many seconds after the first."""
    moment = START + timedelta(seconds=second)
    order = Order(order_id or new_id(), name, Decimal("12.50"), moment)
    return StoredOrder(order, moment, moment)


async def fill(index: SearchIndex, *names: str) -> list[StoredOrder]:
    """Index an order of each name, the first the oldest, and wait until all are found."""
    rows = [row(name, second) for second, name in enumerate(names)]
    assert await index.index(rows) == []
    await visible(index, len(rows))
    return rows


async def names_found(index: SearchIndex, query: str) -> list[str]:
    """Return the names of what a search finds, the best first."""
    return [hit.order.product_name for hit in (await index.search(asked(query, 100))).hits]


class SearchEngine(ABC):
    """One engine without an index at first."""

    @abstractmethod
    def process(self) -> SearchIndex:
        """Return the index as another process would have it."""

    @abstractmethod
    def contents(self) -> SearchContents:
        """Return what an audit in another process would ask."""

    @abstractmethod
    async def end(self, index: SearchIndex) -> None:
        """Let the process that has this index close it."""

    @abstractmethod
    async def wipe(self) -> None:
        """Remove the index behind the back of all processes."""

    @abstractmethod
    async def make_foreign(self, form: int) -> None:
        """Let the index look as one that another version of this project made."""

    @abstractmethod
    async def make_version_1(self, orders: Sequence[Order]) -> None:
        """Put the index of version 0.1 in its place, with these orders.

        Their names are of ASCII letters: its words were those, and so were the stems of singulars.
        """

    @abstractmethod
    def target(self) -> RebuildTarget:
        """Return what builds the index anew, as another process would have it."""

    @abstractmethod
    async def parts(self) -> int:
        """Return how many indexes are there, whichever is in use."""

    @abstractmethod
    async def close(self) -> None:
        """Close every process's index."""


class ForgetfulEngine(SearchEngine):
    """One that can be made to lose what it got last, as an old copy of its disk would."""

    @abstractmethod
    def keep(self) -> None:
        """Remember what it holds."""

    @abstractmethod
    async def go_back(self) -> None:
        """Let all processes end, and hold what was remembered."""


class Tantivy(ForgetfulEngine):
    """An index in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._copy = directory.with_name("copy")
        self._processes: list[TantivyIndex] = []

    def process(self) -> TantivyIndex:
        """Return a handle of its own on the directory; the locks do not care for processes."""
        index = TantivyIndex(
            self.directory,
            search_timeout_seconds=SEARCH_TIMEOUT_SECONDS,
            index_timeout_seconds=INDEX_TIMEOUT_SECONDS,
        )
        self._processes.append(index)
        return index

    def contents(self) -> SearchContents:
        """Return what a handle of its own shows."""
        return TantivyContents(self.process())

    async def end(self, index: SearchIndex) -> None:
        """Close the handle."""
        await next(one for one in self._processes if one is index).close()

    async def wipe(self) -> None:
        """Remove the directory."""
        shutil.rmtree(self.directory)

    def keep(self) -> None:
        """Copy the directory."""
        shutil.copytree(self.directory, self._copy)

    async def go_back(self) -> None:
        """Put the copy in its place."""
        await self.close()
        await self.wipe()
        shutil.copytree(self._copy, self.directory)

    async def make_foreign(self, form: int) -> None:
        """Write another form beside the index's name."""
        current = self.directory / "current"
        name, _ = json.loads(current.read_bytes())
        current.write_text(json.dumps([name, form]))

    async def make_version_1(self, orders: Sequence[Order]) -> None:
        """Write it with the engine itself."""
        shutil.rmtree(self.directory, ignore_errors=True)
        (self.directory / "orders-1").mkdir(parents=True)
        builder = tantivy.SchemaBuilder()
        builder.add_text_field("id", tokenizer_name="raw", index_option="basic")
        builder.add_text_field("stems", tokenizer_name="whitespace", index_option="basic")
        builder.add_text_field("words", tokenizer_name="whitespace", index_option="basic")
        builder.add_text_field("name", tokenizer_name="raw", index_option="basic", fast=True)
        for column in ("created", "cents", "id_high", "id_low", "checksum"):
            builder.add_integer_field(column, fast=True)
        builder.add_bytes_field("source", stored=True)
        path = str(self.directory / "orders-1")
        writer = tantivy.Index(builder.build(), path, reuse=False).writer(15_000_000, num_threads=1)
        for order in orders:
            document = dict(documents.document(order, START).to_dict())
            del document["parts"]
            document["words"] = document["stems"] = [words_of_version_1(order.product_name)]
            writer.add_document(tantivy.Document(**document))
        writer.commit()
        (self.directory / "current").write_text(json.dumps(["orders-1", 4_001]))

    def target(self) -> TantivyTarget:
        """Return handles of their own in both roles."""
        building = TantivyIndex(
            self.directory,
            role="building",
            search_timeout_seconds=SEARCH_TIMEOUT_SECONDS,
            index_timeout_seconds=INDEX_TIMEOUT_SECONDS,
        )
        self._processes.append(building)
        return TantivyTarget(self.process(), building)

    async def parts(self) -> int:
        """Count the directories."""
        return len(list(self.directory.glob("orders-*")))

    async def close(self) -> None:
        """Close every handle."""
        for index in self._processes:
            await index.close()
