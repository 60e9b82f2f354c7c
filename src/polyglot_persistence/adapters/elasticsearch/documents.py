"""An order's document in the index, and back: the explicit mapping.

Analysis is ours (`domain.terms`), so that both engines find the same: `words`, `stems` (the exact
terms) and `parts` arrive as words separated by blanks, and the analyzer only splits them again.
`product_name` and `created_at` are for display and aggregation, for example in Kibana.

Invariant: `FORM` is incremented with every change of the mapping, or of a setting that an index
cannot change later; an index of an older form is only read, and only until one of this form has
replaced it.
"""

import functools
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from polyglot_persistence.domain.codec import checksum_of
from polyglot_persistence.domain.order import CENT, Order, from_micros, id_text, to_micros
from polyglot_persistence.domain.search.terms import ANALYSIS_VERSION, name_terms

FORM = 6_000 + ANALYSIS_VERSION

READ_FORM_MIN = 5_001
"""Older ones have other columns. This one lacks `parts`, and some of the terms of others."""

OWNER = "polyglot-persistence"
"""In the mapping of each index made by this project; only such indexes are ever deleted."""

NAMES_CACHED_MAX = 16_384
"""Some 8 MB. An order stream repeats its names, and analyzing one costs 20 us."""

_MOMENT_SHOWN = {"type": "date", "format": "strict_date_optional_time"}
_BY_WORD = {"type": "text", "analyzer": "parted", "norms": False, "index_options": "docs"}

REFRESH_SECONDS = 1.0
"""Interval after which indexed documents become visible; a shorter one costs indexing."""

COPIES: Mapping[str, str] = {"auto_expand_replicas": "0-1"}
"""A second copy as soon as there is a second node; one node has no place for it."""

SETTINGS: Mapping[str, Any] = {
    **COPIES,
    # Explicit, so that an index without searches is refreshed, too.
    "refresh_interval": f"{REFRESH_SECONDS:g}s",
    "analysis": {"analyzer": {"parted": {"type": "custom", "tokenizer": "whitespace"}}},
}

MAPPINGS: Mapping[str, Any] = {
    "dynamic": "strict",
    "_meta": {"owner": OWNER, "form": FORM},
    "properties": {
        "id": {"type": "keyword"},
        "product_name": {"type": "keyword", "index": False},
        "amount_cents": {"type": "long"},
        # A date has milliseconds; searches and sorts use `created_micros`.
        "created_at": {**_MOMENT_SHOWN, "index": False},
        "created_micros": {"type": "long"},
        "indexed_at": {**_MOMENT_SHOWN, "index": False, "doc_values": False},
        "words": _BY_WORD,
        "stems": _BY_WORD,
        "parts": _BY_WORD,
        "checksum": {"type": "long", "index": False},
        "seal": {"type": "long", "index": False},
    },
}


def mappings_of(alias: str) -> Mapping[str, Any]:
    """Return the mappings of an index for an alias, with our mark of ownership."""
    return {**MAPPINGS, "_meta": {**MAPPINGS["_meta"], "alias": alias}}


SHOWN = ["id", "product_name", "amount_cents", "created_at"]

SEALED_CHECKSUM = """
for (name in ['product_name', 'amount_cents', 'created_at', 'created_micros', 'checksum', 'seal']) {
  if (doc[name].size() != 1) { return -1; }
}
long micros = doc['created_micros'].value;
long seal = doc['product_name'].value.hashCode() + doc['amount_cents'].value + micros;
long beyond = micros - 1000 * doc['created_at'].value.toInstant().toEpochMilli();
boolean intact = seal == doc['seal'].value && beyond >= 0 && beyond < 1000;
return intact ? doc['checksum'].value : -1;
"""
"""Script for a document's checksum; -1 if its columns differ from those that were indexed.

An edit in place (`_update`) keeps the checksum, which is part of the source. A script cannot
compute SHA-256, but it can compute the seal.
"""


class Columns(msgspec.Struct):
    """The returned columns of a hit, read without decoding a whole document: each a list of one."""

    id: list[UUID]
    product_name: list[str]
    amount_cents: list[int]
    created_micros: list[int]


COLUMNS = list(Columns.__struct_fields__)


class _Name(NamedTuple):
    """The parts of a document that depend only on its name: UTF-8, hash, and JSON."""

    utf8: bytes
    java_hash: int
    name: bytes
    terms: bytes
    """The members `words`, `stems` and `parts`."""


_json = msgspec.json.Encoder().encode


@functools.lru_cache(maxsize=NAMES_CACHED_MAX)
def _taken_apart(name: str) -> _Name:
    terms = name_terms(name)
    words, stems, parts = (_json(" ".join(one)) for one in (terms.words, terms.exact, terms.parts))
    return _Name(
        name.encode(),
        java_hash(name),
        _json(name),
        b'"words":%b,"stems":%b,"parts":%b' % (words, stems, parts),
    )


def java_hash(name: str) -> int:
    """Return Java's `String.hashCode`, which a script in the cluster also computes."""
    units = memoryview(name.encode("utf-16-le")).cast("H")
    found = functools.reduce(lambda so_far, unit: (31 * so_far + unit) & 0xFFFFFFFF, units, 0)
    return found - (found >> 31 << 32)


# Formatted, instead of encoding a struct: a quarter less of the worker's longest step.
_ITEM = (
    b'{"index":{"_id":"%b"}}\n{"id":"%b","product_name":%b,"amount_cents":%d,"created_at":%b,'
    b'"created_micros":%d,"indexed_at":%b,%b,"checksum":%d,"seal":%d}\n'
)


def bulk_item(order: Order, indexed_at: datetime) -> bytes:
    """Return the order as an item of a bulk request: two lines.

    Raises:
        ValueError: it can never be indexed (`UnicodeError` and msgspec's errors are ValueErrors).
    """
    name = _taken_apart(order.product_name)
    order_id = id_text(order.id)
    cents, micros = int(order.amount / CENT), to_micros(order.created_at)
    return _ITEM % (
        order_id,
        order_id,
        name.name,
        cents,
        _json(order.created_at),
        micros,
        _json(indexed_at),
        name.terms,
        checksum_of(order_id, cents, micros, name.utf8),
        name.java_hash + cents + micros,
    )


def removal_item(order_id: UUID) -> bytes:
    """Return the removal of a document as an item of a bulk request."""
    return b'{"delete":{"_id":"%b"}}\n' % id_text(order_id)


def order(source: Mapping[str, Any]) -> Order:
    """Return the order as in the record."""
    return Order(
        UUID(source["id"]),
        source["product_name"],
        Decimal(source["amount_cents"]) * CENT,
        datetime.fromisoformat(source["created_at"]),
    )


def order_of(columns: Columns) -> Order:
    """Return the same order, from its columns."""
    return Order(
        columns.id[0],
        columns.product_name[0],
        Decimal(columns.amount_cents[0]) * CENT,
        from_micros(columns.created_micros[0]),
    )
