"""How well real queries find real product names, on every engine (see `tests/relevance`)."""

import json
from collections import defaultdict
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from statistics import mean

import pytest

from polyglot_persistence.domain.order import Order, new_id
from polyglot_persistence.ports import SearchIndex, StoredOrder
from tests.support.orders import START
from tests.support.search_indexes import REAL_ENGINES, asked, visible

SET = Path(__file__).parents[1] / "relevance"
NAMES = (SET / "names.txt").read_text(encoding="utf-8").splitlines()
QUERIES: list[tuple[str, str, list[str]]] = json.loads(
    (SET / "queries.json").read_text(encoding="utf-8")
)

RECALL_MIN = 0.92
MRR_MIN = 0.90
"""A little below what both engines reach."""


def test_the_set_is_large_and_asks_for_names_that_there_are() -> None:
    """At least 60 queries, each with names to be found, no query twice."""
    assert len({query for query, _, _ in QUERIES}) == len(QUERIES) >= 60
    wanted = {name for _, _, names in QUERIES for name in names}
    assert all(names for _, _, names in QUERIES)
    assert wanted <= set(NAMES)


@pytest.mark.parametrize("engine", REAL_ENGINES, indirect=True)
async def test_queries_find_what_they_mean(index: SearchIndex) -> None:
    """Recall among the first ten and the rank of the first hit stay above a floor."""
    orders = [
        Order(new_id(), name, Decimal("1.00"), START - timedelta(seconds=second))
        for second, name in enumerate(NAMES)
    ]
    assert await index.index([StoredOrder(order, START, START) for order in orders]) == []
    await visible(index, len(orders))
    recalls: dict[str, list[float]] = defaultdict(list)
    ranks: list[float] = []
    for query, kind, wanted in QUERIES:
        found = [hit.order.product_name for hit in (await index.search(asked(query, 10))).hits]
        recall = sum(name in found for name in wanted) / len(wanted)
        recalls[kind].append(recall)
        first = next((place for place, name in enumerate(found, 1) if name in wanted), None)
        ranks.append(0.0 if first is None else 1 / first)
        if recall < 1:
            print(f"{query!r} found {found[:10]}, not all of {wanted}")
    every = [recall for of_kind in recalls.values() for recall in of_kind]
    kinds = ", ".join(f"{kind} {mean(values):.2f}" for kind, values in recalls.items())
    print(f"{len(QUERIES)} queries: recall@10 {mean(every):.3f}, MRR {mean(ranks):.3f} ({kinds})")
    assert mean(every) >= RECALL_MIN
    assert mean(ranks) >= MRR_MIN
