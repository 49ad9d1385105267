"""Who agrees with whom: every two raters side by side, those who agree next to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from tuneful.feedback.points import Points
from tuneful.feedback.votes import Floats, Ints

MOST_RATERS: Final = 40
"""Rows that can still be read; those who said most are shown."""

_DOUBT: Final = 10
"""Common points by which little evidence is drawn to chance before raters are put in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """raters in rows and columns. alike: the share of common points on which two say the same, a tie on either side
    counting half; None where they have none, and on the diagonal. common: how many there are. left_out: raters who are
    not shown, having said less."""

    raters: tuple[str, ...]
    alike: tuple[tuple[float | None, ...], ...]
    common: tuple[tuple[int, ...], ...]
    left_out: int


def rater_matrix(points: Points) -> Matrix:
    from scipy.sparse import csr_array

    shape = (len(points.raters), int(points.point.max()) + 1)
    place = (points.rater, points.point)
    said = csr_array((np.ones(len(points.rater)), place), shape=shape)
    order = csr_array((points.outcome.astype(np.float64), place), shape=shape)
    most = np.argsort(-np.bincount(points.rater), kind="stable")[:MOST_RATERS]
    common = np.asarray((said[most] @ said[most].T).toarray())
    product = np.asarray((order[most] @ order[most].T).toarray())
    np.fill_diagonal(common, 0)
    alike = (common + product) / (2 * np.maximum(common, 1))
    drawn = (common * alike + _DOUBT / 2) / (common + _DOUBT)
    rows = _side_by_side(drawn)
    return Matrix(
        raters=tuple(points.raters[most[n]] for n in rows),
        alike=tuple(tuple(float(alike[a, b]) if common[a, b] else None for b in rows) for a in rows),
        common=tuple(tuple(int(common[a, b]) for b in rows) for a in rows),
        left_out=len(points.raters) - len(most),
    )


def _side_by_side(alike: Floats) -> Ints:
    """An order of the raters in which neighbours agree: the leaves of average-linkage clustering, turned so that the
    distances between neighbours add up to least (Bar-Joseph et al. 2001); those who agree most with all come first."""
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
    from scipy.spatial.distance import squareform

    if len(alike) < 3:
        return np.arange(len(alike))
    apart = 1 - alike
    np.fill_diagonal(apart, 0)
    distances = squareform((apart + apart.T) / 2, checks=False)
    rows = np.asarray(leaves_list(optimal_leaf_ordering(linkage(distances, "average"), distances)), np.int64)
    mean = alike.mean(1)[rows]
    half = len(rows) // 2
    return rows[::-1] if mean[:half].mean() < mean[-half:].mean() else rows
