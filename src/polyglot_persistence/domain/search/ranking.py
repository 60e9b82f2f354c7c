"""Ranking of matches, for every search engine.

A query word matches a word of a name in one of four ways (`Tier`). Matches with the fewest typos
come first, among these those with the fewest parts, among these those with the most exact words.
Among equal ranks the newer order goes first, since it is more likely of a product that is often
ordered; then the greater id.
"""

import enum
from typing import NamedTuple


class Tier(enum.IntEnum):
    """How a query word matches a name, the best last."""

    TYPO = 0
    PART = 1
    BEGINNING = 2
    EXACT = 3


class Counts(NamedTuple):
    """The number of query words that match a name in each tier, or a better one."""

    parts: int
    beginnings: int
    exact: int

    def of(self, tier: Tier) -> int:
        """Return how many match in this tier or a better one; with a typo, all do."""
        return self[tier - 1]


class Ranking:
    """The rank of a match of a query with this many words, and its parts.

    An engine adds the weight of each word's tier. The weights are powers of the number of words
    plus one, so no count of a lower tier outweighs a higher one. All sums are small integers, so
    they are exact even in the 32-bit floats in which engines add scores.
    """

    def __init__(self, query_words: int) -> None:
        self._base = query_words + 1
        exact = 1
        beginning = self._base
        part = self._base**2
        self.weights = {
            Tier.TYPO: 0,
            Tier.PART: part,
            Tier.BEGINNING: part + beginning,
            Tier.EXACT: part + beginning + exact,
        }
        self.rank_max = query_words * self.weights[Tier.EXACT]

    def rank(self, counts: Counts) -> int:
        """Return the rank of a match."""
        return (counts.parts * self._base + counts.beginnings) * self._base + counts.exact

    def counts(self, rank: float) -> Counts:
        """Return the counts that make up a rank."""
        rest, exact = divmod(int(rank), self._base)
        return Counts(*divmod(rest, self._base), exact)

    def score(self, rank: float) -> float:
        """Return a rank as a score above 0 and at most 1 (every word exact)."""
        return (rank + 1) / (self.rank_max + 1)
