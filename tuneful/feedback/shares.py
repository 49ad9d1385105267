"""Shares with intervals: how many of so many, and how far that can be trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from tuneful.feedback.votes import Floats, Ints

_Z: Final = 1.959963984540054  # of 95 %


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """value of `of` cases, with its 95 % interval. What is half right counts half."""

    value: float
    low: float
    high: float
    of: int


def wilson(value: float, num: float, *, of: int | None = None) -> Share:
    """A share of `num` independent cases with the score interval of Wilson (1927). of: the cases told, `num` of them
    being worth as much as independent ones; without it they are the same."""
    centre = (value + _Z**2 / (2 * num)) / (1 + _Z**2 / num)
    half = _Z * math.sqrt(value * (1 - value) / num + _Z**2 / (4 * num**2)) / (1 + _Z**2 / num)
    return Share(
        value=value,
        low=max(0.0, centre - half),
        high=min(1.0, centre + half),
        of=round(num) if of is None else of,
    )


def clustered(right: Floats, asked: Floats, cluster: Ints) -> Share | None:
    """Share of cases that resemble each other within a cluster; None when nothing was asked.

    right, asked: float [N], sums of some cases; cluster: int [N], theirs. The interval is Wilson's of as many
    independent cases as have the same standard error (Korn and Graubard 1998); where all clusters say the same there
    is none to be seen, and each cluster counts as one case.
    """
    total = float(asked.sum())
    if not total:
        return None
    value = min(1.0, max(0.0, float(right.sum()) / total))
    _, number = np.unique(cluster[asked > 0], return_inverse=True)
    num = int(number.max()) + 1
    rest = np.bincount(number, (right - value * asked)[asked > 0])
    variance = num / max(num - 1, 1) * float((rest**2).sum()) / total**2
    worth = value * (1 - value) / variance if variance > 1e-12 and num > 1 else float(num)
    return wilson(value, min(max(worth, 1.0), total), of=round(total))
