"""Row orders that can be resumed, and batches within a token budget."""

from __future__ import annotations

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneful.data.batching import balanced_shares, shuffled_epochs, token_budget_batches
from tuneful.errors import ConfigError


@given(st.integers(1, 50), st.integers(0, 2**40))
def test_each_epoch_is_a_permutation(num_rows: int, seed: int) -> None:
    row = shuffled_epochs(num_rows, seed)
    for epoch in range(3):
        rows = [row(position) for position in range(epoch * num_rows, (epoch + 1) * num_rows)]
        assert sorted(rows) == list(range(num_rows))


def test_the_order_can_be_entered_anywhere() -> None:
    row = shuffled_epochs(7, seed=3)
    forward = [row(position) for position in range(30)]
    assert [shuffled_epochs(7, seed=3)(position) for position in reversed(range(30))] == forward[::-1]


def test_epochs_and_seeds_differ() -> None:
    row, other = shuffled_epochs(20, seed=0), shuffled_epochs(20, seed=1)
    first, second = [row(i) for i in range(20)], [row(i) for i in range(20, 40)]
    assert first != list(range(20))
    assert len({tuple(first), tuple(second), tuple(other(i) for i in range(20))}) == 3


def test_every_place_is_equally_likely() -> None:
    # Row 0 of 4 over 4000 epochs: each place 1000 times, standard deviation sqrt(4000 * 1/4 * 3/4) = 27.4
    row = shuffled_epochs(4, seed=0)
    places = [next(i for i in range(4) if row(4 * epoch + i) == 0) for epoch in range(4000)]
    assert all(abs(places.count(place) - 1000) < 5 * 27.4 for place in range(4))


def test_no_rows() -> None:
    with pytest.raises(ConfigError, match="at least one row"):
        shuffled_epochs(0, seed=0)


def test_batches_by_hand() -> None:
    # Longest first 9 7 5 4 2. Budget 14: 9 alone (two rows of 9 are 18); 7 and 5 as 2 x 7; 4 and 2 as 2 x 4.
    assert token_budget_batches([4, 9, 2, 7, 5], 14) == [[1], [3, 4], [0, 2]]


def test_units_by_hand() -> None:
    # Units {0, 3}, {1, 4}, {2} are 3, 6, 5 wide. Budget 18: unit 1 with unit 2 is 3 x 6; then unit 0.
    assert token_budget_batches([3, 6, 5, 1, 2], 18, units=[0, 1, 2, 0, 1]) == [[1, 4, 2], [0, 3]]


def test_rows_of_one_prompt_follow_each_other() -> None:
    """Prompts a (rows of 4, 9), b (8, 3), c (5). By their longest a, b, c; budget 16: 9 with no other, for 2 x 9 are
    18; then 4 and 8 as 2 x 8; then 3 and 5, which is as wide as what comes, 2 x 5."""
    assert token_budget_batches([4, 8, 5, 9, 3], 16, prompts="abcab") == [[3], [0, 1], [4, 2]]


def test_more_than_the_budget_goes_alone() -> None:
    assert token_budget_batches([50, 3, 3], 10, units=[0, 1, 1]) == [[0], [1, 2]]
    assert token_budget_batches([8, 8, 1], 10, units=[0, 0, 1]) == [[0, 1], [2]]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), max_size=60), st.integers(1, 200), st.integers(1, 9))
def test_every_row_once_units_whole_budget_kept(rows: list[tuple[int, int]], budget: int, num_prompts: int) -> None:
    lengths, units = [length for length, _ in rows], [unit for _, unit in rows]
    prompts = [unit % num_prompts for unit in units]
    batches = token_budget_batches(lengths, budget, units, prompts)
    assert sorted(row for batch in batches for row in batch) == list(range(len(rows)))
    for unit in set(units):
        assert sum(unit in {units[row] for row in batch} for batch in batches) == 1
    for batch in batches:
        one_unit = len({units[row] for row in batch}) == 1
        assert one_unit or len(batch) * max(lengths[row] for row in batch) <= budget
    seen = [key for key, _ in groupby(prompts[row] for batch in batches for row in batch)]
    assert len(seen) == len(set(seen))
    assert not rows or max(lengths[row] for row in batches[0]) == max(lengths)


@given(st.lists(st.integers(0, 40), max_size=60), st.integers(1, 200))
def test_longest_first(lengths: list[int], budget: int) -> None:
    widths = [max(lengths[row] for row in batch) for batch in token_budget_batches(lengths, budget)]
    assert widths == sorted(widths, reverse=True)


def test_a_budget_of_nothing() -> None:
    with pytest.raises(ConfigError, match="tokens_per_microbatch must be at least 1, got 0"):
        token_budget_batches([1], 0)


def test_shares_by_hand() -> None:
    # From the largest down, each to the share with the least: 8 against 7, 8 against 13, 13 against 13, and the 4 goes
    # to the first of two equals.
    assert balanced_shares([4, 8, 6, 5, 7], 2) == [[0, 1, 3], [2, 4]]
    # A unit's tokens count together: 9 + 1 of unit 7 against 4 + 4 of unit 5, then 3 to the lighter.
    assert balanced_shares([9, 4, 1, 4, 3], 2, [7, 5, 7, 5, 2]) == [[0, 2], [1, 3, 4]]
    assert balanced_shares([3, 2], 3) == [[0], [1], []]
    assert balanced_shares([], 2) == [[], []]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), max_size=40), st.integers(1, 5))
def test_shares_hold_every_row_once_and_units_whole(rows: list[tuple[int, int]], num_shares: int) -> None:
    lengths, units = [length for length, _ in rows], [unit for _, unit in rows]
    shares = balanced_shares(lengths, num_shares, units)
    assert len(shares) == num_shares
    assert sorted(row for share in shares for row in share) == list(range(len(rows)))
    assert sum(len({units[row] for row in share}) for share in shares) == len(set(units))
    # What any dealing out in this way promises: none exceeds the mean by more than the largest unit.
    tokens = [sum(lengths[row] for row in share) for share in shares]
    largest = max((sum(length for length, unit in rows if unit == u) for u in units), default=0)
    assert max(tokens) <= sum(tokens) / num_shares + largest
