from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import friedmanchisquare, spearmanr

from tuneful.errors import DataError
from tuneful.feedback.agreement import interval, krippendorff_alpha, nominal
from tuneful.feedback.kappas import cohen_kappa, fleiss_kappa, kendall_w, linear

# Two psychiatrists, 200 patients, three diagnoses: Cohen (1960), table 3, and the same shares in Cohen (1968), table 1.
COHEN = [[88, 14, 18], [10, 40, 10], [2, 6, 12]]

# Six of many psychiatrists to each of 30 patients; depression, personality disorder, schizophrenia, neurosis, other:
# Fleiss (1971), table 1.
FLEISS = [
    [0, 0, 0, 6, 0],
    [0, 3, 0, 0, 3],
    [0, 1, 4, 0, 1],
    [0, 0, 0, 0, 6],
    [0, 3, 0, 3, 0],
    [2, 0, 4, 0, 0],
    [0, 0, 4, 0, 2],
    [2, 0, 3, 1, 0],
    [2, 0, 0, 4, 0],
    [0, 0, 0, 0, 6],
    [1, 0, 0, 5, 0],
    [1, 1, 0, 4, 0],
    [0, 3, 3, 0, 0],
    [1, 0, 0, 5, 0],
    [0, 2, 0, 3, 1],
    [0, 0, 5, 0, 1],
    [3, 0, 0, 1, 2],
    [5, 1, 0, 0, 0],
    [0, 2, 0, 4, 0],
    [1, 0, 2, 0, 3],
    [0, 0, 0, 0, 6],
    [0, 1, 0, 5, 0],
    [0, 2, 0, 1, 3],
    [2, 0, 0, 4, 0],
    [1, 0, 0, 4, 1],
    [0, 5, 0, 1, 0],
    [4, 0, 0, 0, 2],
    [0, 2, 0, 4, 0],
    [1, 0, 5, 0, 0],
    [0, 0, 0, 0, 6],
]


def labels_of(table: list[list[int]]) -> tuple[list[float | None], list[float | None]]:
    """Two raters' labels 0, 1, 2 ... of the items that a table counts."""
    one: list[float | None] = []
    other: list[float | None] = []
    for a, row in enumerate(table):
        for b, times in enumerate(row):
            one += times * [a]
            other += times * [b]
    return one, other


def test_cohen_1960() -> None:
    # observed 140 of 200 alike, by chance 82: (140 - 82) / (200 - 82) = 58 / 118
    found = cohen_kappa(*labels_of(COHEN))
    assert found.value == pytest.approx(58 / 118)
    assert found.value == pytest.approx(0.492, abs=5e-4)
    assert found.num_items == 200
    assert found.interval is not None
    # standard error as the paper has it: sqrt(.7 * .3 / (200 * .59^2)) = .055
    assert found.interval == pytest.approx((0.492 - 1.96 * 0.055, 0.492 + 1.96 * 0.055), abs=0.03)


def test_cohen_1968_with_the_weights_of_the_paper() -> None:
    """Weights 1, 3 and 6; observed .90, by chance 1.38, so 1 - .90 / 1.38 = .348."""

    def weights(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return np.array([[0.0, 1, 3], [1, 0, 6], [3, 6, 0]])

    assert cohen_kappa(*labels_of(COHEN), weights).value == pytest.approx(1 - 0.90 / 1.38)


def test_weights_by_hand() -> None:
    # (1, 1), (1, 2), (2, 3), (3, 3). Rows 1: 2, 2: 1, 3: 1; columns 1: 1, 2: 1, 3: 2; of 16 products:
    # unequal 16 - (2 + 1 + 2) = 11, observed 2/4: 1 - (8/16) / (11/16) = 3/11
    one: list[float | None] = [1, 1, 2, 3]
    other: list[float | None] = [1, 2, 3, 3]
    assert cohen_kappa(one, other).value == pytest.approx(3 / 11)
    # linear: by chance 2(0 + 1 + 2*2) + (1 + 0 + 1*2) + (2 + 1 + 0) = 10 + 3 + 3 = 16; 1 - (8/16) / (16/16)
    assert cohen_kappa(one, other, linear).value == pytest.approx(1 / 2)
    # squares: by chance 2(0 + 1 + 4*2) + (1 + 0 + 1*2) + (4 + 1 + 0) = 18 + 3 + 5 = 26; 1 - 8/26
    assert cohen_kappa(one, other, interval).value == pytest.approx(9 / 13)


def test_what_one_left_out_is_left_out() -> None:
    found = cohen_kappa([1, 1, 2, None, 3], [1, 2, None, 2, 3], num_resamples=0)
    # (1, 1), (1, 2), (3, 3): observed 1/3, by chance 1 - (2*1 + 0*1 + 1*1) / 9 = 6/9
    assert (found.value, found.interval, found.num_items) == (pytest.approx(1 / 2), None, 3)


def test_two_who_never_use_each_others_labels_agree_as_chance_does() -> None:
    assert cohen_kappa([1, 1], [2, 2]).value == 0  # each is sure of his label, so chance would not agree either


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [([1, 1], [1, 1], "one and the same label"), ([1, None], [None, 1], "no item has labels of both")],
)
def test_undefined_kappa_says_why(one: list[float | None], other: list[float | None], reason: str) -> None:
    found = cohen_kappa(one, other)
    assert (found.value, found.interval) == (None, None)
    assert reason in found.reason


def test_labels_of_different_items_are_refused() -> None:
    with pytest.raises(DataError, match="2 labels and 3"):
        cohen_kappa([1, 2], [1, 2, 3])


labels = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=2, max_size=30)


@given(labels)
def test_kappa_is_symmetric_and_at_most_1(pairs: list[tuple[int, int]]) -> None:
    one, other = [a for a, _ in pairs], [b for _, b in pairs]
    for distance in (nominal, linear, interval):
        found = cohen_kappa(one, other, distance, num_resamples=0).value
        turned = cohen_kappa(other, one, distance, num_resamples=0).value
        assert (found is None) == (turned is None)
        if found is not None:
            assert turned == pytest.approx(found)
            assert found <= 1
            assert (found == 1) == (one == other)


@given(labels)
def test_names_of_labels_mean_nothing_to_the_plain_kappa(pairs: list[tuple[int, int]]) -> None:
    renamed = {1: 7.0, 2: -3.0, 3: 100.0, 4: 0.5}
    found = cohen_kappa([a for a, _ in pairs], [b for _, b in pairs], num_resamples=0).value
    other = cohen_kappa([renamed[a] for a, _ in pairs], [renamed[b] for _, b in pairs], num_resamples=0).value
    assert (found is None and other is None) or other == pytest.approx(found)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=2, max_size=30))
def test_of_two_labels_all_weights_are_one(pairs: list[tuple[int, int]]) -> None:
    one, other = [a for a, _ in pairs], [b for _, b in pairs]
    plain, *weighted = (cohen_kappa(one, other, d, num_resamples=0).value for d in (nominal, linear, interval))
    assume(plain is not None)
    assert weighted == pytest.approx([plain, plain])


def test_fleiss_1971() -> None:
    # the paper: mean agreement .556, by chance .220, kappa .430
    found = fleiss_kappa(FLEISS)
    assert found.value == pytest.approx(0.430, abs=5e-4)
    assert found.num_items == 30
    assert found.interval is not None
    assert found.interval[0] < 0.43 < found.interval[1]


def test_fleiss_by_hand() -> None:
    # items (2, 0) and (1, 1) of two raters: agreement 1 and 0, mean 1/2; shares 3/4 and 1/4, by chance 10/16;
    # (1/2 - 5/8) / (3/8) = -1/3
    found = fleiss_kappa([[2, 0], [1, 1]], num_resamples=0)
    assert (found.value, found.interval) == (pytest.approx(-1 / 3), None)


counts_of_labels = st.integers(2, 5).flatmap(
    lambda raters: st.lists(
        st.lists(st.integers(0, 2), min_size=raters, max_size=raters).map(
            lambda given: [given.count(label) for label in range(3)]
        ),
        min_size=2,
        max_size=12,
    )
)


@given(counts_of_labels)
def test_fleiss_and_alpha_differ_by_the_size_of_the_sample_alone(counts: list[list[int]]) -> None:
    """Alpha draws without replacement: with T labels 1 - alpha = (1 - kappa) (T - 1) / T."""
    kappa = fleiss_kappa(counts, num_resamples=0).value
    units = [[label for label, times in enumerate(row) for _ in range(times)] for row in counts]
    alpha = krippendorff_alpha(units, num_resamples=0).value
    total = sum(map(sum, counts))
    if kappa is None:
        assert alpha is None
    else:
        assert alpha is not None
        assert 1 - alpha == pytest.approx((1 - kappa) * (total - 1) / total)


def test_undefined_fleiss_says_why() -> None:
    found = fleiss_kappa([[3, 0], [3, 0]])
    assert found.value is None
    assert "every label given is the same" in found.reason


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([[2, 0], [1, 2]], "item 1 has 3 labels and item 0 has 2"),
        ([[1, 0], [0, 1]], "agreement needs two"),
        ([[1.5, 0.5]], "whole numbers"),
        ([[3, -1]], "whole numbers"),
        ([2, 0], "items by labels"),
    ],
)
def test_counts_that_do_not_fit_are_refused(counts: list[list[float]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        fleiss_kappa(counts)


def test_w_by_hand() -> None:
    # sums of ranks 4, 5, 9, mean 6: 4 + 1 + 9 = 14; 12 * 14 / (3^2 * (27 - 3)) = 168 / 216
    assert kendall_w([(1, 2, 3), (1, 2, 3), (2, 1, 3)]).value == pytest.approx(168 / 216)
    # a tie takes the middle: (1.5, 1.5, 3) and (1, 2, 3); sums 2.5, 3.5, 6, mean 4: 2.25 + .25 + 4 = 6.5, T = 8 - 2;
    # 12 * 6.5 / (4 * 24 - 2 * 6) = 78 / 84
    assert kendall_w([(1, 1, 2), (1, 2, 3)]).value == pytest.approx(78 / 84)
    assert kendall_w([(1, 2, 3), (3, 2, 1)]).value == 0
    assert kendall_w([(1, 1, 2), (5, 5, 9)]).value == pytest.approx(1)  # only the order counts


def test_who_left_one_out_is_left_out_of_w() -> None:
    assert kendall_w([(1, 2, 3), (1, 2, None), (1, 2, 3)]).value == pytest.approx(1)


@pytest.mark.parametrize(
    ("ranks", "reason"),
    [
        ([], "fewer than two"),
        ([(1, 2)], "fewer than two"),
        ([(1, 2), (1, None)], "fewer than two"),
        ([(1,), (1,)], "one thing"),
        ([(1, 1), (2, 2)], "tied everything"),
    ],
)
def test_undefined_w_says_why(ranks: list[tuple[int | None, ...]], reason: str) -> None:
    found = kendall_w(ranks)
    assert found.value is None
    assert reason in found.reason


def test_rankings_of_different_things_are_refused() -> None:
    with pytest.raises(DataError, match="the same number of things"):
        kendall_w([(1, 2), (1, 2, 3)])


rankings = st.tuples(st.integers(2, 5), st.integers(3, 6)).flatmap(
    lambda size: st.lists(st.permutations(range(size[1])), min_size=size[0], max_size=size[0])
)


@given(rankings)
def test_w_is_the_mean_of_spearmans_correlations(ranks: list[list[int]]) -> None:
    """Without ties: mean rho of all pairs of raters = (m W - 1) / (m - 1) (Kendall 1948)."""
    found = kendall_w(ranks).value
    pairs = [spearmanr(a, b).statistic for n, a in enumerate(ranks) for b in ranks[:n]]
    assert found is not None
    assert (len(ranks) * found - 1) / (len(ranks) - 1) == pytest.approx(np.mean(pairs))


@given(st.lists(st.lists(st.integers(1, 3), min_size=4, max_size=4), min_size=3, max_size=6))
def test_w_with_ties_is_friedmans_statistic(ranks: list[list[int]]) -> None:
    """Friedman's chi-square, which SciPy corrects for ties, is m (n - 1) W."""
    found = kendall_w(ranks).value
    assume(found is not None)
    statistic = friedmanchisquare(*np.array(ranks).T).statistic
    assert len(ranks) * 3 * found == pytest.approx(statistic, abs=1e-9)
