"""One ranking as pairs: what a single rater's ranks say about every two completions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from tuneful.errors import DataError
from tuneful.records import Comparison, Prompt

Ranks = Sequence[int | None]


def pairs_from_ranks(ranks: Ranks) -> list[tuple[int, int]]:
    """(winner, loser) positions of every strictly ordered pair, best winner first; ties and None give none.

    Ranks (2, 1, 3) give (1, 0), (1, 2), (0, 2); K different ranks give C(K, 2) pairs (Ouyang et al. 2022, section 3.5).
    """
    return [(i, j) for i, j in _ranked_pairs(ranks) if ranks[i] != ranks[j]]


def ties_from_ranks(ranks: Ranks) -> list[tuple[int, int]]:
    """Positions of every tied pair, the lower position first."""
    return [(i, j) for i, j in _ranked_pairs(ranks) if ranks[i] == ranks[j]]


def comparisons_from_ranking(
    prompt: Prompt, completions: Sequence[str], ranks: Ranks, *, group: str | None = None
) -> list[Comparison]:
    """The pairs of one rater's ranking of the texts `completions`, p = 1; ties are dropped, the rest share weight 1.

    Raises DataError when texts and ranks are not aligned.
    """
    if len(completions) != len(ranks):
        raise DataError(f"ranks: {len(ranks)} ranks for {len(completions)} completions; give one rank or null to each")
    pairs = pairs_from_ranks(ranks)
    return [
        Comparison(prompt, chosen=completions[i], rejected=completions[j], weight=1 / len(pairs), group=group)
        for i, j in pairs
    ]


def _ranked_pairs(ranks: Ranks) -> list[tuple[int, int]]:
    given = [(rank, i) for i, rank in enumerate(ranks) if rank is not None]
    return [(i, j) for (_, i), (_, j) in combinations(sorted(given), 2)]
