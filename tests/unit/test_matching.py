"""How near two words are, and what comparing them costs the event loop."""

import asyncio
import gc
import string
import time
from collections.abc import Coroutine, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyglot_persistence.domain.order import Order, new_id
from polyglot_persistence.domain.search.matching import edits
from polyglot_persistence.domain.search.query import NameOrders, SearchQuery
from polyglot_persistence.domain.search.terms import QueryWord, parse_query
from polyglot_persistence.flows.projections.search import SearchFlow
from polyglot_persistence.ports.search import Hit, SearchIndex, SearchResult
from tests.support.orders import START
from tests.support.scripted import FakeClock
from tests.support.search_model import edits as edits_of_the_table

WORDS = st.text("abc\u0434", max_size=70)
CALLBACK_SECONDS_MAX = 0.02


@given(WORDS, WORDS, st.integers(0, 70))
def test_edits_are_those_of_the_whole_table(left: str, right: str, edits_max: int) -> None:
    """Exactly up to the bound, and above it above it."""
    away = edits_of_the_table(left, right)
    found = edits(left, right, edits_max)
    assert found == away if away <= edits_max else found > edits_max


class Shop:
    """An index that answers every question with all of its names."""

    def __init__(self, names: Sequence[str], *, are_hits: bool) -> None:
        self._names = names
        self._hits = [
            Hit(Order(new_id(), name, Decimal(1), START - timedelta(seconds=second)), 0)
            for second, name in enumerate(names if are_hits else ())
        ]

    async def search(self, query: SearchQuery) -> SearchResult:
        """Return a page of the hits."""
        return SearchResult(len(self._hits), self._hits[: query.hits_max])

    async def names(self, words: Sequence[QueryWord], names_max: int) -> Sequence[NameOrders]:
        """Return the names."""
        return [NameOrders(name, 1) for name in self._names[:names_max]] if words else []


def flow_over(names: Sequence[str], *, are_hits: bool) -> SearchFlow:
    return SearchFlow(cast("SearchIndex", Shop(names, are_hits=are_hits)), FakeClock())


async def longest_callback_seconds(asking: Coroutine[Any, Any, object]) -> float:
    """Return the most processor time that a turn of the event loop takes meanwhile."""
    longest = 0.0
    asked = asyncio.ensure_future(asking)
    gc.disable()  # a collection looks at all that other tests have left
    try:
        while not asked.done():
            started = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - started)
    finally:
        gc.enable()
    await asked
    return longest


def planted(place: int) -> str:
    """Return a name of three words of 64 letters, like no other, a typo off at both ends."""
    middle = "abcdefghij" * 6
    tail = "".join("klmnopqrst"[int(digit)] for digit in f"{place:03}")
    return " ".join(f"{first}{middle}{tail}" for first in "xyz")


@pytest.mark.parametrize("are_hits", [True, False])
async def test_planted_names_do_not_hold_the_event_loop(are_hits: bool) -> None:
    """A page of them, and a correction out of them, take many turns of the loop."""
    flow = flow_over([planted(place) for place in range(300)], are_hits=are_hits)
    query = parse_query(" ".join(f"{first}{'abcdefghij' * 6}kkk" for first in "uvw"))
    assert await longest_callback_seconds(flow.search(SearchQuery(query, 100))) < (
        CALLBACK_SECONDS_MAX
    )


@pytest.mark.parametrize("text", ["abcd efgh ijkl mnop", "ab cd e", "ab"])
async def test_names_of_many_words_do_not_hold_the_event_loop(text: str) -> None:
    """Neither in a page nor in a suggestion, with letters that are looked for among names."""
    letters = string.ascii_lowercase
    names = [
        " ".join(a + b for a in letters[n % 20 : n % 20 + 3] for b in letters[:22]) + f" {n}"
        for n in range(200)
    ]
    flow = flow_over(names, are_hits=True)
    query = SearchQuery(parse_query(text), 100)
    assert await longest_callback_seconds(flow.search(query)) < CALLBACK_SECONDS_MAX
    assert await longest_callback_seconds(flow.suggest(text, 20)) < CALLBACK_SECONDS_MAX


@pytest.mark.parametrize(
    ("text", "names", "corrected"),
    [
        ("q", ["Chanel 5"], None),
        ("\u0436", ["Chanel 5"], None),
        ("\U0001f984", ["Chanel 5"], None),
        ("\u6f22", ["Chanel 5", "\u65e5\u672c\u9152"], None),
        ("\u65e5\u6f22", ["\u65e5\u672c\u9152"], None),
        ("ab", ["Ax by"], None),
        ("1234", ["1235"], None),
        ("cta", ["Cat food"], "cat"),
        ("q w", ["The Who", "Quartz Watch"], None),
        ("w", ["W Magazine"], None),
        ("\u0436 q x", ["\u0416\u0443\u043a", "Xbox", "Quiz"], None),
        ("q chocolade", ["Chocolate Quiz"], "chocolate"),
        ("vitamn c", ["Vitamin C", "Vitamin Cherry"], "vitamin c"),
        ("ch", ["Chanel 5"], "chanel"),
        ("chocolade", ["Chocolate bar"], "chocolate"),
        ("buter", ["Butter"], "butter"),
    ],
)
async def test_a_correction_is_near(text: str, names: Sequence[str], corrected: str | None) -> None:
    """One sign never stands for another, nor does a number."""
    page = await flow_over(names, are_hits=False).search(SearchQuery(parse_query(text), 10))
    assert page.did_you_mean == corrected
