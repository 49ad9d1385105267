"""Row orders that can be resumed, and batches within a token budget."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneful.data.batching import shuffled_epochs, token_budget_batches
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


def test_more_than_the_budget_goes_alone() -> None:
    assert token_budget_batches([50, 3, 3], 10, units=[0, 1, 1]) == [[0], [1, 2]]
    assert token_budget_batches([8, 8, 1], 10, units=[0, 0, 1]) == [[0, 1], [2]]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), max_size=60), st.integers(1, 200))
def test_every_row_once_units_whole_budget_kept(rows: list[tuple[int, int]], budget: int) -> None:
    lengths, units = [length for length, _ in rows], [unit for _, unit in rows]
    batches = token_budget_batches(lengths, budget, units)
    assert sorted(row for batch in batches for row in batch) == list(range(len(rows)))
    for unit in set(units):
        assert sum(unit in {units[row] for row in batch} for batch in batches) == 1
    for batch in batches:
        one_unit = len({units[row] for row in batch}) == 1
        assert one_unit or len(batch) * max(lengths[row] for row in batch) <= budget
    widths = [max(lengths[row] for row in batch) for batch in batches]
    assert all(wide >= narrow for wide, narrow in pairwise(widths))


def test_a_budget_of_nothing() -> None:
    with pytest.raises(ConfigError, match="tokens_per_microbatch must be at least 1, got 0"):
        token_budget_batches([1], 0)
