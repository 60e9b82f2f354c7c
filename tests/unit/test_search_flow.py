"""Completion: what is remembered of it, and for how long."""

from collections.abc import Sequence
from typing import cast

from polyglot_persistence.domain.search.query import NameOrders, SearchQuery
from polyglot_persistence.domain.search.terms import QueryWord, parse_query
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.flows.projections.search import (
    LOOKED_THROUGH_MAX,
    SUGGESTIONS_REMEMBERED_SECONDS,
    SearchFlow,
)
from polyglot_persistence.ports.search import SearchIndex, SearchResult
from tests.support.scripted import FakeClock


class Names:
    """An index that knows some names by the stem of their only word, and counts its callers."""

    def __init__(self, **orders: int) -> None:
        self.orders = orders
        self.asked = 0

    async def names(self, words: Sequence[QueryWord], names_max: int) -> Sequence[NameOrders]:
        """Return the name that the first word is a beginning of."""
        self.asked += 1
        prefixes = words[0].prefixes
        found = [NameOrders(*one) for one in self.orders.items() if one[0].startswith(prefixes)]
        return found[:names_max]


def flow_over(names: Names, clock: FakeClock) -> SearchFlow:
    return SearchFlow(cast("SearchIndex", names), clock)


async def suggested(flow: SearchFlow, text: str, names_max: int = 10) -> list[str]:
    return [one.product_name for one in await flow.suggest(text, names_max)]


async def test_a_completion_is_remembered_for_some_seconds() -> None:
    """However it is written; and no longer, so that what is new is suggested."""
    names, clock = Names(milk=3), FakeClock()
    flow = flow_over(names, clock)
    for text in ("mi", "MI", " mi "):
        assert await suggested(flow, text) == ["milk"]
    assert names.asked == 1
    names.orders["mint"] = 1
    assert await suggested(flow, "mi") == ["milk"]
    clock.advance(SUGGESTIONS_REMEMBERED_SECONDS)
    assert await suggested(flow, "mi") == ["milk", "mint"]


async def test_each_number_of_completions_is_a_question_of_its_own() -> None:
    """A shorter list is no answer to who wants a longer one."""
    flow = flow_over(Names(milk=3, mint=2), FakeClock())
    assert await suggested(flow, "mi", 1) == ["milk"]
    assert await suggested(flow, "mi", 2) == ["milk", "mint"]


async def test_that_nothing_was_found_is_not_remembered() -> None:
    """The first order of a product is suggested at once."""
    names = Names()
    flow = flow_over(names, FakeClock())
    assert await suggested(flow, "mi") == []
    names.orders["milk"] = 1
    assert await suggested(flow, "mi") == ["milk"]


async def test_a_letter_is_looked_for_among_the_names_that_have_the_other_words() -> None:
    """The engine is asked for it only if too many names have these, and none of the first."""
    names = Names(**{"milk chocolate": 3, "milk": 2, "milk cream": 1})
    flow = flow_over(names, FakeClock())
    assert await suggested(flow, "milk c") == ["milk chocolate", "milk cream"]
    assert await suggested(flow, "milk c", 1) == ["milk chocolate"]
    assert names.asked == 2
    names.orders = {f"milk {n}": n for n in range(LOOKED_THROUGH_MAX)}
    assert await suggested(flow, "milk x") == [f"milk {n}" for n in range(10)]
    assert names.asked == 4


class Unanswered(Names):
    """An index without a match, which does not answer what could correct a query."""

    async def search(self, _query: SearchQuery) -> SearchResult:
        """Return that nothing matches."""
        return SearchResult(0, [])

    async def names(self, words: Sequence[QueryWord], names_max: int) -> Sequence[NameOrders]:
        """Be away."""
        raise UnavailableError("no answer in time")


async def test_that_nothing_matches_is_said_without_a_correction() -> None:
    """A correction is an extra: without one the answer is known."""
    page = await flow_over(Unanswered(), FakeClock()).search(SearchQuery(parse_query("mlik"), 10))
    assert (page.total, page.did_you_mean) == (0, None)
