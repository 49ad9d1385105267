from __future__ import annotations

from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneful.data.rankings import comparisons_from_ranking, pairs_from_ranks, ties_from_ranks
from tuneful.errors import DataError
from tuneful.records import Prompt


def test_pairs_of_three() -> None:
    assert pairs_from_ranks((2, 1, 3)) == [(1, 0), (1, 2), (0, 2)]


@pytest.mark.parametrize(("size", "count"), [(2, 1), (4, 6), (9, 36)])
def test_a_strict_ranking_gives_every_pair(size: int, count: int) -> None:
    assert len(pairs_from_ranks(range(1, size + 1))) == count


def test_ties_are_apart() -> None:
    assert pairs_from_ranks((1, 1, 2)) == [(0, 2), (1, 2)]
    assert ties_from_ranks((1, 1, 2)) == [(0, 1)]


def test_what_was_not_ranked_is_in_no_pair() -> None:
    assert pairs_from_ranks((2, None, 1)) == [(2, 0)]
    assert ties_from_ranks((None, None, 1)) == []


@given(st.lists(st.none() | st.integers(1, 4), max_size=7))
def test_every_two_ranked_completions_are_one_pair_or_one_tie(ranks: list[int | None]) -> None:
    found = pairs_from_ranks(ranks) + ties_from_ranks(ranks)
    assert len({frozenset(pair) for pair in found}) == len(found) == comb(len(ranks) - ranks.count(None), 2)


@given(st.lists(st.integers(1, 9), min_size=2, max_size=9).filter(lambda ranks: len(set(ranks)) > 1))
def test_a_prompt_weighs_one_however_many_completions_it_has(ranks: list[int]) -> None:
    rows = comparisons_from_ranking(Prompt("p"), [f"text {k}" for k in range(len(ranks))], ranks)
    assert sum(row.weight for row in rows) == pytest.approx(1)


def test_ranks_must_fit_the_completions() -> None:
    with pytest.raises(DataError, match="2 ranks for 3 completions"):
        comparisons_from_ranking(Prompt("p"), ["a", "b", "c"], (1, 2))
