"""Raters side by side: shares by hand and by `pair_agreement`, and blocks that stand together."""

from __future__ import annotations

import numpy as np
import pytest

from tests.feedback.rankings import said
from tuneful.feedback.agreement import pair_agreement
from tuneful.feedback.matrix import MOST_RATERS, rater_matrix
from tuneful.feedback.points import ranking_points


def test_two_raters_by_hand() -> None:
    """Ann and Bo share three pairs: one the other way round, one that Bo ties, one alike. Cy shares none."""
    rows = [said("ann", "house", 1, 2, 3), said("bo", "house", 2, 1, 2), said("cy", "door", 1, 2)]
    found = rater_matrix(ranking_points(rows))
    place = {rater: n for n, rater in enumerate(found.raters)}
    ann, bo, cy = (place[name] for name in ("ann", "bo", "cy"))
    assert (found.alike[ann][bo], found.common[ann][bo]) == (0.5, 3)
    assert (found.alike[ann][cy], found.common[ann][cy]) == (None, 0)
    assert found.alike[ann][ann] is None


def test_shares_are_those_of_pair_agreement() -> None:
    rng = np.random.default_rng(1)
    rows = [said(r, f"i{n}", *rng.integers(1, 4, size=3).tolist()) for n in range(20) for r in "abcde"]
    found = rater_matrix(ranking_points(rows))
    for a, one in enumerate(found.raters):
        for b, other in enumerate(found.raters):
            if a != b:
                expected = pair_agreement(rows, one, other)
                assert (found.alike[a][b], found.common[a][b]) == (pytest.approx(expected.share), expected.num_pairs)


def test_those_who_agree_stand_together_and_most_come_first() -> None:
    """Four say one order, two the other way round; their names take turns."""
    right, wrong = ("a", "c", "e", "f"), ("b", "d")
    rows = [said(r, f"i{n}", *((1, 2, 3) if r in right else (3, 2, 1))) for n in range(10) for r in (*right, *wrong)]
    found = rater_matrix(ranking_points(rows))
    assert set(found.raters[:4]) == set(right)
    assert set(found.raters[4:]) == set(wrong)


def test_those_who_said_most_are_shown() -> None:
    many = [f"{n:02}" for n in range(MOST_RATERS + 3)]
    rows = [said(r, f"i{n}", 1, 2) for r in many for n in range(1 if r in ("00", "01", "02") else 2)]
    found = rater_matrix(ranking_points(rows))
    assert found.left_out == 3
    assert set(found.raters) == set(many[3:])
