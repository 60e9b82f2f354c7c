"""The number that ranks a match."""

from itertools import combinations_with_replacement, product

from polyglot_persistence.domain.search.ranking import Counts, Ranking, Tier
from polyglot_persistence.domain.search.terms import QUERY_WORDS_MAX


def test_a_rank_is_the_sum_of_its_words() -> None:
    """In whatever order they stand."""
    for tiers in combinations_with_replacement(Tier, 4):
        ranking = Ranking(4)
        counts = Counts(*(sum(tier >= wanted for tier in tiers) for wanted in list(Tier)[1:]))
        rank = sum(ranking.weights[tier] for tier in tiers)
        assert ranking.rank(counts) == rank
        assert ranking.counts(float(rank)) == counts
        assert [counts.of(tier) for tier in list(Tier)[1:]] == list(counts)


def test_fewer_typos_win_then_fewer_parts_then_more_exact_words() -> None:
    """Scores say so from above 0 to 1."""
    for count in range(1, QUERY_WORDS_MAX + 1):
        ranking = Ranking(count)
        every = [Counts(*c) for c in product(range(count + 1), repeat=3) if c[0] >= c[1] >= c[2]]
        ranks = [ranking.rank(counts) for counts in sorted(every)]
        assert ranks == sorted(set(ranks))
        assert 0 < ranking.score(0) < ranking.score(ranks[-1]) == 1
        assert ranks[-1] == ranking.rank_max < 2**24  # exact in 32-bit floats
