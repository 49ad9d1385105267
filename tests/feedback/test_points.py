"""Judgments taken apart into points, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tests.feedback.rankings import said
from tuneful.errors import DataError
from tuneful.feedback.agreement import share_of_agreement
from tuneful.feedback.points import answer_points, ranking_points
from tuneful.feedback.votes import tabulate

HOUSE = [said("ann", "house", 1, 2, 3), said("bo", "house", 2, 1, 2), said("bo", "door", 2, 1)]


def test_pairs_of_two_rankings() -> None:
    """Of (0, 1), (0, 2), (1, 2) Ann says first, first, first and Bo second, tie, first: alike 0, 1/2 and 1 times."""
    points = ranking_points(HOUSE)
    others, alike = points.others()
    seen = {
        (points.raters[r], points.items[i], int(a) % 3, int(b) % 3): (int(o), int(n), float(k))
        for r, i, a, b, o, n, k in zip(
            points.rater, points.item, points.first - 2, points.second - 2, points.outcome, others, alike, strict=True
        )
        if points.items[i] == "house"
    }
    assert seen == {
        ("ann", "house", 0, 1): (1, 1, 0.0),
        ("ann", "house", 0, 2): (1, 1, 0.5),
        ("ann", "house", 1, 2): (1, 1, 1.0),
        ("bo", "house", 0, 1): (-1, 1, 0.0),
        ("bo", "house", 0, 2): (0, 1, 0.5),
        ("bo", "house", 1, 2): (1, 1, 1.0),
    }


def test_every_word_knows_its_judgment_and_its_item() -> None:
    points = ranking_points(HOUSE)
    for judgment, rater, item in zip(points.judgment, points.rater, points.item, strict=True):
        said_here = points.judgments[judgment]
        assert (said_here.rater, said_here.item) == (points.raters[rater], points.items[item])
    assert (points.option_item[points.first] == points.item).all()
    assert (points.option_item[points.second] == points.item).all()


def test_agreement_is_that_of_the_consensus() -> None:
    rng = np.random.default_rng(0)
    rows = [
        said(rater, f"item {n}", *(int(one) for one in rng.integers(1, 4, size=2 + n % 3)))
        for n in range(12)
        for rater in "abcd"
        if rng.random() < 0.7
    ]
    points = ranking_points(rows)
    others, alike = points.others()
    expected = share_of_agreement(tabulate(rows).pair_votes())
    found = np.bincount(points.rater, alike) / np.bincount(points.rater, others)
    assert found.tolist() == pytest.approx(expected)


def test_yes_and_no_are_two_options_of_an_item() -> None:
    rows = [
        said("ann", "x", kind="binary", values={"toxic": 1}),
        said("bo", "x", kind="binary", values={"toxic": 0}),
        said("cy", "x", kind="binary", values={"rude": 1}),
    ]
    points = answer_points(rows, "toxic")
    assert points.raters == ("ann", "bo")
    assert points.outcome.tolist() == [1, -1]
    others, alike = points.others()
    assert (others.tolist(), alike.tolist()) == ([1, 1], [0, 0])


def test_of_nothing_there_are_no_points() -> None:
    with pytest.raises(DataError, match="none orders two completions"):
        ranking_points([said("ann", "x", 1, None)])
