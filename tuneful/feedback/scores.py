"""What the completions of an item are worth, given how far each rater can be trusted.

A ranking is a sequence of choices: the best of all, then the best of the rest (Plackett 1975, Luce 1959). Its pairs
follow the very Bradley-Terry model that the slopes were learned from, but they are not independent, and counting them
as if they were makes the scores overconfident, the more the longer the ranking is. With alpha_j = e^(beta s_j), a group
G is chosen from the rest R with probability

    nu^(|G| - 1) (prod_G alpha)^(1/|G|) / (sum_R alpha_j + nu sum_{i<j in R} sqrt(alpha_i alpha_j))

which is Davidson's model for two completions and Plackett-Luce without ties (Davidson-Luce: Firth, Kosmidis and Turner
2019; the sum here stops at ties of two). The prior is s ~ N(0, 1). Items are independent given the slopes, so the
Hessian is one K x K block per item.

A model's soft vote gives q to the first of a pair, and counts q log P(first) + (1 - q) log P(second). A firm vote is
one whose q is 1 or 0; any other fits best where P(first), a tie counting half, is q. Of a model that was asked about
all pairs of k completions each counts

    4 (k - H_k) / (k (k - 1))        H_k = 1 + 1/2 + ... + 1/k

so that together they curve the likelihood of equal completions as one ranking of them does; for k = 2 that is 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tuneful.feedback.slopes import davidson
from tuneful.feedback.votes import Block, Floats, Ints

_REFINEMENTS = 2


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Gaussian posterior of the scores of a block's items. mean: float [K, I]; covariance: float [K, K, I]."""

    mean: Floats
    covariance: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Choices:
    """Rankings as choices.

    order: int [K, M], positions best first, unranked last. starts: [K, M], 1 at the first of each tied group, else 0.
    share: [K, M], 1 / size of the group, 0 where unranked.
    """

    order: Ints
    starts: Floats
    share: Floats

    @classmethod
    def of(cls, ranks: Ints) -> Choices:
        """From ranks [M, K] as a Block holds them."""
        sunk = np.where(ranks > 0, ranks, np.iinfo(np.int64).max).T
        order = np.argsort(sunk, axis=0, kind="stable")
        placed = np.take_along_axis(sunk, order, 0)
        size = (placed[:, None] == placed[None]).sum(1)
        ranked = placed < np.iinfo(np.int64).max
        starts = ranked & np.concatenate((np.full((1, placed.shape[1]), True), placed[1:] != placed[:-1]))
        return cls(order, starts.astype(np.float64), ranked / size)


def choice_derivatives(eta: Floats, choices: Choices, nu: float) -> tuple[Floats, Floats]:
    """Gradient [K, M] and Hessian [K, K, M] of a ranking's negative log-likelihood in eta = beta s [K, M], in order."""
    size = len(eta)
    gradient = -choices.share
    hessian = np.zeros((size, *eta.shape))
    ranked = choices.share > 0
    for k in range(size):
        root = np.exp((eta[k:] - eta[k:].max(0)) / 2) * ranked[k:] * choices.starts[k]
        total = root.sum(0)
        norm = (1 - nu / 2) * (root * root).sum(0) + nu / 2 * total * total
        norm[choices.starts[k] == 0] = 1  # nothing is chosen here: a tie with the place before, or no more ranks
        chance = root * (root + nu / 2 * (total - root)) / norm  # expected share of the choice that falls on each
        gradient[k:] += chance
        hessian[k:, k:] += (nu / 4 * root / norm)[:, None] * root - chance[:, None] * chance
        rest = np.arange(k, size)
        hessian[rest, rest] += root * (root + nu / 4 * (total - 2 * root)) / norm
    return gradient, hessian


def fit_scores(block: Block, slopes: Floats, nu: float) -> Scores:
    """The Gaussian nearest to the posterior of the scores, given the raters' slopes [W].

    Newton's method finds the mode. The posterior is skewed where few votes agree, and its mode lies too near 0; so the
    Gaussian is then moved to where the *expected* gradient vanishes, with the expected Hessian as precision, which is
    the variational Gaussian (Opper and Archambeau 2009), expectations by 2K-point cubature.
    """
    size, items = block.ranks.shape[1], len(block.items)
    diagonal = np.arange(size)
    is_firm = np.asarray(np.isnan(block.q).all(1))
    soft = np.flatnonzero(~is_firm)
    firmly = _of_rankings(block, np.flatnonzero(is_firm), slopes, nu)
    softly = _of_soft_votes(block, soft, slopes, nu) if len(soft) else None

    def likelihood(scores: Floats) -> tuple[Floats, Floats]:
        gradient, hessian = firmly(scores)
        if softly is None:
            return gradient, hessian
        more = softly(scores)
        return gradient + more[0], hessian + more[1]

    def newton(mean: Floats, gradient: Floats, hessian: Floats) -> tuple[Floats, Floats]:
        hessian[diagonal, diagonal] += 1
        covariance = invert(hessian)
        return -np.einsum("abi,bi->ai", covariance, gradient + mean), covariance

    mean = np.zeros((size, items))
    for _ in range(50):
        step, covariance = newton(mean, *likelihood(mean))
        mean = mean + np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-4:
            break
    for _ in range(_REFINEMENTS):
        spread = np.sqrt(size) * np.linalg.cholesky(covariance.transpose(2, 0, 1)).transpose(2, 1, 0)
        gradient, hessian = np.zeros_like(mean), np.zeros_like(covariance)
        for offset in (*spread, *-spread):
            at_point = likelihood(mean + offset)
            gradient += at_point[0] / (2 * size)
            hessian += at_point[1] / (2 * size)
        step, covariance = newton(mean, gradient, hessian)
        mean = mean + step
    return Scores(mean, covariance)


Derivatives = Callable[[Floats], tuple[Floats, Floats]]
"""Scores [K, I] -> gradient [K, I] and Hessian [K, K, I] of a negative log-likelihood in them."""


def _of_rankings(block: Block, rows: Ints, slopes: Floats, nu: float) -> Derivatives:
    choices, beta, item = Choices.of(block.ranks[rows]), slopes[block.rater[rows]], block.item[rows]
    size, items = block.ranks.shape[1], len(block.items)
    cell = choices.order * items + item
    corner = (choices.order[:, None] * size + choices.order[None]) * items + item

    def derivatives(scores: Floats) -> tuple[Floats, Floats]:
        gradient, hessian = choice_derivatives(beta * scores.ravel()[cell], choices, nu)
        summed = np.bincount(cell.ravel(), (beta * gradient).ravel(), size * items)
        curved = np.bincount(corner.ravel(), (beta * beta * hessian).ravel(), size * size * items)
        return (
            np.asarray(summed, np.float64).reshape(size, items),
            np.asarray(curved, np.float64).reshape(size, size, items),
        )

    return derivatives


def soft_weight(num_ranked: Ints) -> Floats:
    """Of each pair of a soft ranking of so many completions, two or more."""
    harmonic = np.cumsum(1 / np.arange(1, num_ranked.max() + 1))
    return np.asarray(4 * (num_ranked - harmonic[num_ranked - 1]) / (num_ranked * (num_ranked - 1)), np.float64)


def _of_soft_votes(block: Block, rows: Ints, slopes: Floats, nu: float) -> Derivatives:
    size, items = block.ranks.shape[1], len(block.items)
    row, pair = np.nonzero(~np.isnan(block.q[rows]))
    q, item, beta = block.q[rows][row, pair], block.item[rows][row], slopes[block.rater[rows]][row]
    weight = soft_weight((block.ranks[rows] > 0).sum(1))[row]
    first, second = (side[pair] for side in block.pairs)
    cell = np.concatenate([side * items + item for side in (first, second)])
    corners = [(one * size + other) * items + item for one in (first, second) for other in (first, second)]
    corner = np.concatenate(corners)

    def derivatives(scores: Floats) -> tuple[Floats, Floats]:
        _, tie, lead = davidson(beta * (scores[first, item] - scores[second, item]), nu)
        slope = weight * beta * (lead - (q - 0.5))
        curve = weight * beta * beta * ((1 - tie) / 4 - lead * lead)
        summed = np.bincount(cell, np.concatenate((slope, -slope)), size * items)
        curved = np.bincount(corner, np.concatenate((curve, -curve, -curve, curve)), size * size * items)
        return (
            np.asarray(summed, np.float64).reshape(size, items),
            np.asarray(curved, np.float64).reshape(size, size, items),
        )

    return derivatives


def invert(blocks: Floats) -> Floats:
    """Inverse of each positive definite blocks[:, :, i] of [K, K, I], all at once, by the sweep operator."""
    swept = blocks.copy()
    for k in range(len(swept)):
        pivot = swept[k, k].copy()
        row, column = swept[k] / pivot, swept[:, k].copy()
        swept -= column[:, None] * row[None]
        swept[k] = row
        swept[:, k] = -column / pivot
        swept[k, k] = 1 / pivot
    return swept
