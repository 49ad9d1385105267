from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneful.errors import DataError
from tuneful.feedback.dawid_skene import LabelModel, binary_consensus, fit_labels
from tuneful.records import Judgment


def simulated(matrices: list[list[list[float]]], *, num_items: int, seed: int) -> tuple[np.ndarray, ...]:
    """True classes, and item, rater and label of one label by each rater to each item."""
    rng = np.random.default_rng(seed)
    confusion = np.array(matrices)
    truth = rng.integers(confusion.shape[1], size=num_items)
    item, rater = (grid.ravel() for grid in np.mgrid[:num_items, : len(confusion)])
    chance = confusion[rater, truth[item]].cumsum(1)
    label = (rng.random((len(item), 1)) > chance).sum(1)
    return truth, item, rater, label


def even(accuracy: float) -> list[list[float]]:
    return [[accuracy, 1 - accuracy], [1 - accuracy, accuracy]]


def test_one_round_by_hand() -> None:
    """One rater says 0 of item 0 and 1 of item 1; a = 1.

    M: (1 + 1) / (1 + 2) = 2/3 on the diagonal, 1/3 beside it; prevalence (1 + 1) / (2 + 2) = 1/2. E: each item is what
    he said with 2/3. Evidence of an item (2/3 + 1/3) / 2 = 1/2, and the prior is that of four cells and two classes.
    """
    model = fit_labels([0, 1], [0, 0], [0, 1], num_labels=2, pseudo_count=1, lean=0, max_rounds=1)
    assert model.confusion[0] == pytest.approx(np.array([[2, 1], [1, 2]]) / 3)
    assert model.prevalence == pytest.approx([1 / 2, 1 / 2])
    assert model.posterior == pytest.approx(np.array([[2, 1], [1, 2]]) / 3)
    prior = 2 * np.log(2 / 3) + 2 * np.log(1 / 3) + 2 * np.log(1 / 2)
    assert model.log_posterior == pytest.approx((2 * np.log(1 / 2) + prior,))
    assert model.accuracy == pytest.approx([2 / 3])


def test_two_against_one_by_hand() -> None:
    """Ann and Ben say 0, Cid says 1, of the single item; a = 1. Vote shares 2/3 and 1/3.

    M, Ann: row 0 (2/3 + 1, 1) / (2/3 + 2) = (5/8, 3/8); row 1 (1/3 + 1, 1) / (1/3 + 2) = (4/7, 3/7); Cid: row 0
    (1, 5/3) / (8/3) = (3/8, 5/8), row 1 (3/7, 4/7); prevalence (5/3, 4/3) / 3 = (5/9, 4/9).
    E: 5/9 * (5/8)^3 against 4/9 * (4/7)^3, since all three are of the same size here.
    """
    model = fit_labels([0, 0, 0], [0, 1, 2], [0, 0, 1], num_labels=2, pseudo_count=1, lean=0, max_rounds=1)
    assert model.confusion[0] == pytest.approx(np.array([[5 / 8, 3 / 8], [4 / 7, 3 / 7]]))
    assert model.confusion[2] == pytest.approx(np.array([[3 / 8, 5 / 8], [3 / 7, 4 / 7]]))
    zero, one = 5 / 9 * (5 / 8) ** 3, 4 / 9 * (4 / 7) ** 3
    assert model.posterior[0] == pytest.approx([zero / (zero + one), one / (zero + one)])


def both_say(pairs: list[tuple[int, int]], **settings: float) -> LabelModel:
    """The model of two raters, from what each said of every item."""
    item, rater = (grid.ravel() for grid in np.mgrid[: len(pairs), :2])
    return fit_labels(item, rater, np.array(pairs).ravel(), num_labels=2, **settings)


def test_two_raters_by_hand() -> None:
    """Of 100 items both say yes of 34 and no of 34, and 16 go each way. Two who are right with 4/5 agree on
    16/25 + 1/25 = 68 %, and yes by both is yes with (16/25) / (17/25) = 16/17, yes by one with 1/2.

    So 4/5 is a fixed point, the prior's 4 : 1 being its own: the diagonal is (34 * 16/17 + 16/2 + 2) / (50 + 5/2).
    """
    assert (34 * 16 / 17 + 16 / 2 + 2) / (50 + 5 / 2) == 4 / 5
    model = both_say([(1, 1)] * 34 + [(0, 0)] * 34 + [(1, 0)] * 16 + [(0, 1)] * 16)
    assert model.confusion == pytest.approx(np.array([even(0.8)] * 2), abs=1e-3)
    assert model.posterior[[0, 34], 1] == pytest.approx([16 / 17, 1 / 17], abs=1e-3)
    assert model.posterior[[68, 84], 1] == pytest.approx([1 / 2, 1 / 2], abs=1e-9)


@pytest.mark.parametrize("counts", [(4, 0, 2, 2), (3, 1, 2, 2), (2, 2, 2, 2), (3, 2, 2, 1), (5, 1, 1, 1)])
def test_two_who_agree_are_surer_than_two_who_do_not(counts: tuple[int, ...]) -> None:
    """Eight items: both say yes, both say no, one and the other says yes. Without the lean the first two kinds are no
    surer than the others: .503 and .502 for the first row of counts."""
    kinds = [(1, 1), (0, 0), (1, 0), (0, 1)]
    model = both_say([said for said, count in zip(kinds, counts, strict=True) for _ in range(count)])
    sure = model.posterior.max(1)
    agreed = counts[0] + counts[1]
    assert sure[0] > 0.85
    assert sure[0] > sure[agreed:].max() + 0.1
    assert model.posterior[0, 1] > 0.5


def test_one_item_by_hand() -> None:
    """Two say yes of the single item. M, either: the row of yes is (1/2, 1 + 2) / (7/2) = (1/7, 6/7), that of no the
    prior alone, (4/5, 1/5); prevalence (1/2, 3/2) / 2 = (1/4, 3/4). E: 3/4 * 36/49 against 1/4 * 1/25, 2700 to 49.
    One against one: the matrices mirror each other, and the item is even."""
    agreed = both_say([(1, 1)], max_rounds=1)
    assert agreed.confusion[0] == pytest.approx(np.array([[4 / 5, 1 / 5], [1 / 7, 6 / 7]]))
    assert agreed.posterior[0, 1] == pytest.approx(2700 / 2749)
    assert both_say([(1, 0)]).posterior[0, 1] == pytest.approx(1 / 2, abs=1e-9)


def test_a_single_rater_is_taken_at_his_word() -> None:
    """Nobody can confirm him, and nothing speaks against him; without the lean 43 of his 100 words were turned."""
    _, item, rater, label = simulated([even(0.85)], num_items=100, seed=0)
    assert (fit_labels(item, rater, label, num_labels=2).posterior.argmax(1) == label).all()


def test_three_upside_down_of_ten_are_found() -> None:
    """400 items, three labels each: the share of votes is right on 70 % of the items."""
    accuracies = [0.85] * 7 + [0.15] * 3
    truth, item, rater, label = simulated([even(a) for a in accuracies], num_items=400, seed=0)
    kept = np.random.default_rng(0).permuted(np.tile(np.arange(10) < 3, (400, 1)), axis=1).ravel()
    item, rater, label = item[kept], rater[kept], label[kept]
    model = fit_labels(item, rater, label, num_labels=2)
    assert model.confusion[7:, [0, 1], [0, 1]].max() < 0.4
    assert model.confusion[:7, [0, 1], [0, 1]].min() > 0.6
    votes = np.zeros((400, 2))
    np.add.at(votes, (item, label), 1)
    assert (votes.argmax(1) == truth).mean() < 0.75
    assert (model.posterior.argmax(1) == truth).mean() > 0.9


def test_raters_are_found_one_of_them_upside_down() -> None:
    accuracies = [0.9, 0.8, 0.8, 0.7, 0.1]
    truth, item, rater, label = simulated([even(a) for a in accuracies], num_items=1500, seed=0)
    model = fit_labels(item, rater, label, num_labels=2)
    assert model.accuracy == pytest.approx(accuracies, abs=0.04)
    right = (model.posterior.argmax(1) == truth).mean()
    votes = np.zeros((1500, 2))
    np.add.at(votes, (item, label), 1)
    assert right > (votes.argmax(1) == truth).mean() + 0.04
    assert model.posterior.max(1).mean() == pytest.approx(right, abs=0.02)  # as sure as it is right


def test_three_classes_and_a_rater_who_mistakes_one_for_another() -> None:
    good = [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]]
    mixes = [[0.9, 0.05, 0.05], [0.05, 0.15, 0.8], [0.05, 0.15, 0.8]]
    truth, item, rater, label = simulated([good, good, good, mixes], num_items=2000, seed=1)
    model = fit_labels(item, rater, label, num_labels=3)
    assert model.confusion[3] == pytest.approx(np.array(mixes), abs=0.06)
    assert (model.posterior.argmax(1) == truth).mean() > 0.9


label_rows = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=40)


@given(label_rows, st.sampled_from([0.01, 0.5, 2.0]))
def test_the_log_posterior_never_falls(rows: list[tuple[int, int, int]], pseudo_count: float) -> None:
    item, rater, label = zip(*rows, strict=True)
    model = fit_labels(item, rater, label, num_labels=3, pseudo_count=pseudo_count, max_rounds=60)
    assert all(later >= earlier - 1e-8 for earlier, later in pairwise(model.log_posterior))
    assert model.posterior.sum(1) == pytest.approx(1)
    assert model.confusion.sum(2) == pytest.approx(1)
    assert model.prevalence.sum() == pytest.approx(1)


@given(label_rows)
def test_names_of_classes_mean_nothing(rows: list[tuple[int, int, int]]) -> None:
    item, rater, label = (np.array(column) for column in zip(*rows, strict=True))
    renamed = np.array([2, 0, 1])
    one, other = (fit_labels(item, rater, names, num_labels=3, max_rounds=20) for names in (label, renamed[label]))
    assert other.posterior[:, renamed] == pytest.approx(one.posterior, abs=1e-6)


def test_nothing_is_held_for_certain() -> None:
    """However often all agree, no cell is 0 and no posterior is 1."""
    item, rater = (grid.ravel() for grid in np.mgrid[:50, :3])
    model = fit_labels(item, rater, item % 2, num_labels=2)
    assert model.confusion.min() > 0
    assert 0.99 < model.posterior.max() < 1


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (([], [], []), "there are none"),
        (([0, 1], [0], [0]), "must align"),
        (([0], [0], [2]), "below num_labels = 2"),
        (([-1], [0], [0]), "start at 0"),
    ],
)
def test_what_is_no_label_is_refused(columns: tuple[list[int], ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        fit_labels(*columns, num_labels=2)


def test_a_lean_away_from_raters_is_refused() -> None:
    with pytest.raises(DataError, match="must not be below 0, got -1"):
        fit_labels([0], [0], [0], num_labels=2, lean=-1)


def test_a_pseudo_count_of_zero_is_refused() -> None:
    with pytest.raises(DataError, match="maximum likelihood"):
        fit_labels([0], [0], [0], num_labels=2, pseudo_count=0)


def answer(rater: str, item: str, value: float, criterion: str = "safe") -> Judgment:
    return Judgment(
        id=f"{rater}-{item}",
        item=item,
        prompt=f"prompt {item}",
        completions=(f"{item}-0",),
        rater=rater,
        kind="binary",
        values={criterion: value},
    )


def crowd() -> tuple[list[Judgment], np.ndarray, LabelModel]:
    truth, item, rater, label = simulated([even(a) for a in (0.9, 0.85, 0.8, 0.1)], num_items=300, seed=2)
    rows = [answer("abcd"[r], f"{i:03}", int(x)) for i, r, x in zip(item, rater, label, strict=True)]
    return rows, truth, fit_labels(item, rater, label, num_labels=2)


def test_judgments_are_the_same_labels() -> None:
    rows, truth, model = crowd()
    found = binary_consensus(rows, "safe")
    assert list(found.items) == [f"{i:03}" for i in range(300)]
    assert list(found.items.values()) == pytest.approx(model.posterior[:, 1])
    assert found.prevalence == pytest.approx(model.prevalence[1])
    assert [r.rater for r in found.raters] == list("abcd")
    assert [r.num_judgments for r in found.raters] == [300] * 4
    assert found.raters[3].says_yes_when_yes < 0.2
    assert found.raters[3].says_no_when_no < 0.2
    assert found.raters[0].accuracy == pytest.approx(0.9, abs=0.06)
    said = np.array(list(found.items.values())) > 0.5
    assert (said == truth.astype(bool)).mean() > 0.9


def test_order_of_judgments_means_nothing_to_labels() -> None:
    rows, _, _ = crowd()
    shuffled = [rows[n] for n in np.random.default_rng(0).permutation(len(rows))]
    assert binary_consensus(shuffled, "safe") == binary_consensus(rows, "safe")


def test_only_the_last_revision_and_the_asked_criterion_count() -> None:
    first = answer("ann", "i", 0)
    last = replace(first, id="later", values={"safe": 1, "polite": 0}, replaces=first.id)
    ranking = Judgment(id="r", item="i", prompt="p", completions=("x", "y"), rater="eva", ranks=(1, 2))
    found = binary_consensus([first, last, answer("ben", "i", 1), answer("cid", "k", 1, "polite"), ranking], "safe")
    assert list(found.items) == ["i"]
    assert found.items["i"] > 0.5
    assert [(r.rater, r.num_judgments) for r in found.raters] == [("ann", 1), ("ben", 1)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], 'none of kind binary answers "safe"'),
        ([answer("ann", "i", 1, "polite")], 'none of kind binary answers "safe"'),
        ([answer("ann", "i", 0.5)], '"safe" is 0.5'),
        ([answer("ann", "i", 1), answer("ann", "i", 0)], "comes twice"),
    ],
)
def test_judgments_that_are_no_answer_are_refused(rows: list[Judgment], message: str) -> None:
    with pytest.raises(DataError, match=message):
        binary_consensus(rows, "safe")
