"""An order's document in the index, and back.

    id          the order's id, to replace and to find it by
    stems       terms that a query's word matches exactly or with a typo (`terms.NameTerms.exact`)
    words       words that a query's word may begin
    parts       the ends of words, each from where a part of it may begin
    name        the product name as it is, to count by
    created, cents, id_high, id_low   columns to order by; bounds are of the first two
    checksum    a column that stands for the content, for audits
    source      the contents of a hit

Invariant: `FORM` is incremented with every change of the fields; an index of an older form is only
read, and only until one of this form has replaced it.
"""

import functools
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

import msgspec
import tantivy

from polyglot_persistence.domain.codec import checksum
from polyglot_persistence.domain.order import CENT, Order, from_micros, to_micros
from polyglot_persistence.domain.search.terms import ANALYSIS_VERSION, name_terms

FORM = 5_000 + ANALYSIS_VERSION

READ_FORM_MIN = 4_001
"""Older ones have other columns. This one lacks `parts`, and some of the terms of others."""

_COLUMNS = ("created", "cents", "id_high", "id_low", "checksum")

NAMES_CACHED_MAX = 4_096
"""Below 2 MB. An order stream repeats its names, and analyzing one costs 20 us."""

_HALF = 1 << 63


class Source(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Stored beside the columns: the whole order, and when it was indexed."""

    id: UUID
    product_name: str
    amount_cents: int
    created_micros: int
    indexed_micros: int

    def order(self) -> Order:
        """Return the order as in the record."""
        amount = Decimal(self.amount_cents) * CENT
        return Order(self.id, self.product_name, amount, from_micros(self.created_micros))


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Source)


def schema() -> tantivy.Schema:
    """Return the fields of the index."""
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("id", tokenizer_name="raw", index_option="basic")
    for terms in ("stems", "words", "parts"):
        builder.add_text_field(terms, tokenizer_name="whitespace", index_option="basic")
    builder.add_text_field("name", tokenizer_name="raw", index_option="basic", fast=True)
    for column in _COLUMNS:
        builder.add_integer_field(column, fast=True)
    builder.add_bytes_field("source", stored=True)
    return builder.build()


def has_parts(schema: tantivy.Schema) -> bool:
    """Return whether an index has the field `parts`, which older forms lack."""
    try:
        tantivy.Query.term_query(schema, "parts", "")
    except ValueError:
        return False
    return True


class _Name(NamedTuple):
    words: str
    stems: str
    parts: str


@functools.lru_cache(maxsize=NAMES_CACHED_MAX)
def _taken_apart(name: str) -> _Name:
    return _Name(*map(" ".join, name_terms(name)))


def document(order: Order, indexed_at: datetime) -> tantivy.Document:
    """Return the order as a document.

    Raises:
        ValueError: it can never be indexed (`UnicodeError` and msgspec's errors are ValueErrors).
    """
    name = _taken_apart(order.product_name)
    cents, created = int(order.amount / CENT), to_micros(order.created_at)
    source = Source(order.id, order.product_name, cents, created, to_micros(indexed_at))
    high, low = halves(order.id)
    return tantivy.Document(
        id=str(order.id),
        words=name.words,
        stems=name.stems,
        parts=name.parts,
        name=order.product_name,
        created=created,
        cents=cents,
        id_high=high,
        id_low=low,
        checksum=checksum(order),
        source=_encoder.encode(source),
    )


def halves(order_id: UUID) -> tuple[int, int]:
    """Return the id as two numbers that keep its order; the columns are signed."""
    high, low = divmod(order_id.int, 1 << 64)
    return high - _HALF, low - _HALF


def joined(high: int, low: int) -> UUID:
    """Return the id of the two numbers."""
    return UUID(int=(high + _HALF) << 64 | (low + _HALF))


def source(stored: tantivy.Document) -> Source:
    """Return the stored source of a document."""
    return _decoder.decode(stored["source"][0])
