"""A document of Elasticsearch is filled in as bytes: it must be JSON whatever an order says."""

import json
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from polyglot_persistence.adapters.elasticsearch.documents import (
    MAPPINGS,
    bulk_item,
    java_hash,
    order,
)
from polyglot_persistence.domain.codec import checksum
from polyglot_persistence.domain.order import AMOUNT_MAX, Order, from_micros, to_micros
from polyglot_persistence.domain.search.terms import name_terms

ORDERS = st.builds(
    Order,
    st.uuids(),
    st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=200),
    st.decimals(0, AMOUNT_MAX, places=2).map(abs),
    st.integers(0, 4_102_444_800_000_000).map(from_micros),  # until the year 2100
)
INDEXED_AT = datetime(2025, 1, 2, 3, 4, 5, 678901, UTC)


@given(ORDERS)
def test_an_item_is_two_lines_of_json_with_every_field_of_the_mapping(one: Order) -> None:
    """Names may hold quotes, backslashes and any script."""
    action, document, rest = bulk_item(one, INDEXED_AT).split(b"\n")
    assert rest == b""
    assert json.loads(action) == {"index": {"_id": str(one.id)}}
    found = json.loads(document)
    assert found.keys() == MAPPINGS["properties"].keys()
    assert order(found) == one
    assert found["created_micros"] == to_micros(one.created_at)
    assert found["checksum"] == checksum(one)
    terms = [found[field].split() for field in ("words", "stems", "parts")]
    assert terms == list(map(list, name_terms(one.product_name)))
    assert datetime.fromisoformat(found["indexed_at"]) == INDEXED_AT


def test_the_hash_of_a_name_is_that_of_java() -> None:
    """Figures of a JDK's `String.hashCode`; the last name is of two surrogates."""
    names = {"": 0, "Milk": 2398267, "polygenelubricants": -2147483648, "\U0001fad6": 1773144}
    assert {name: java_hash(name) for name in names} == names
