"""How well real queries find real product names, on every engine (see `tests/relevance`)."""

import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import pytest

from polyglot_persistence.domain.order import Order, new_id
from polyglot_persistence.ports.orders import StoredOrder
from polyglot_persistence.ports.search import SearchIndex
from tests.support.orders import START
from tests.support.search_indexes import REAL_ENGINES, asked, visible

DIRECTORY = Path(__file__).parents[1] / "relevance"

Query = tuple[str, str, list[str]]


def _names(file: str) -> list[str]:
    return (DIRECTORY / file).read_text(encoding="utf-8").splitlines()


def _queries(file: str) -> list[Query]:
    queries: list[Query] = json.loads((DIRECTORY / file).read_text(encoding="utf-8"))
    return queries


class JudgedSet(NamedTuple):
    """Queries over names, and a little less than what both engines reach."""

    names: Sequence[str]
    queries: Sequence[Query]
    recall_min: float
    mrr_min: float


SHOP = _names("names.txt")
SETS = {
    "shop": JudgedSet(SHOP, _queries("queries.json"), 0.937, 0.91),
    "world": JudgedSet(
        [*SHOP, *_names("world_names.txt")], _queries("world_queries.json"), 0.98, 0.95
    ),
}


@pytest.mark.parametrize("judged", SETS.values(), ids=SETS)
def test_a_set_is_large_and_asks_for_names_that_there_are(judged: JudgedSet) -> None:
    """At least 60 queries, each with names to be found, no query twice."""
    assert len({query for query, _, _ in judged.queries}) == len(judged.queries) >= 60
    wanted = {name for _, _, names in judged.queries for name in names}
    assert all(names for _, _, names in judged.queries)
    assert wanted <= set(judged.names)


@pytest.mark.parametrize("engine", REAL_ENGINES, indirect=True)
@pytest.mark.parametrize("judged", SETS.values(), ids=SETS)
async def test_queries_find_what_they_mean(index: SearchIndex, judged: JudgedSet) -> None:
    """Recall among the first ten and the rank of the first hit stay above a floor."""
    orders = [
        Order(new_id(), name, Decimal("1.00"), START - timedelta(seconds=second))
        for second, name in enumerate(judged.names)
    ]
    assert await index.index([StoredOrder(order, START, START) for order in orders]) == []
    await visible(index, len(orders))
    recalls: dict[str, list[float]] = defaultdict(list)
    ranks: list[float] = []
    for query, kind, wanted in judged.queries:
        found = [hit.order.product_name for hit in (await index.search(asked(query, 10))).hits]
        recall = sum(name in found for name in wanted) / len(wanted)
        recalls[kind].append(recall)
        first = next((place for place, name in enumerate(found, 1) if name in wanted), None)
        ranks.append(0.0 if first is None else 1 / first)
        if recall < 1 or first != 1:
            print(f"{query!r} found {found[:10]}, wanted are {wanted}")
    every = [recall for of_kind in recalls.values() for recall in of_kind]
    kinds = ", ".join(f"{kind} {mean(values):.2f}" for kind, values in recalls.items())
    print(f"{len(every)} queries: recall@10 {mean(every):.3f}, MRR {mean(ranks):.3f} ({kinds})")
    assert mean(every) >= judged.recall_min
    assert mean(ranks) >= judged.mrr_min
