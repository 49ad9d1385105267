"""How far each rater can be trusted: one slope per rater, learned from agreement alone.

Two completions of one item differ by d ~ N(0, 2), since scores are N(0, 1) within an item. With eta = beta_r d, rater r
of slope beta_r answers

    P(first) = e^(eta/2) / Z,   P(tie) = nu / Z,   P(second) = e^(-eta/2) / Z,   Z = e^(eta/2) + e^(-eta/2) + nu

(Bradley and Terry 1952; ties: Davidson 1970; rater slopes: Chen et al. 2013, Crowd-BT). A slope near 0 is a rater who
answers at random, one below 0 a rater who reads the scale upside down.

All votes on a pair are integrated over d, so slopes and scores cannot explain each other's noise, as they would if both
were maximised with three votes to a pair. A strict vote that stands alone on its pair says nothing about its rater, as
it should. The pairs of an item are multiplied as if independent (a composite likelihood: Varin, Reid and Firth 2011):
the estimate stays consistent, and the overconfidence is taken out of the interval, which comes from the sandwich
H^-1 J H^-1 with the curvature H summed over pairs and the variance J of the gradient summed over items.

How sure a model is of its vote (feedback.votes) has no part in it, only which side it takes. The cross-entropy that its
scores are fitted to would ask for a slope of 0 here: by Hölder's inequality its integral over d is at most 1/2 for a
vote that stands alone, and is that at 0, so a model that nobody contradicts would count for nothing.

Turning all slopes and all scores around changes no likelihood. The prior, whose mean is positive, decides: of the two
mirror images the one whose slopes have a positive sum is kept, so most raters are taken to mean what they say.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_array

from tuneful.feedback.votes import Floats, Ints, PairVotes

PRIOR_SLOPE = 1.7
"""Prior mean of a slope: two raters of this slope order 73 % of pairs alike, as people do (Stiennon et al. 2020)."""
PRIOR_SLOPE_SD = 1.0
PRIOR_LOG_NU_SD = 3.0

_REACH = 4 * np.sqrt(2)  # the integral over d ends at four standard deviations
_MOST_NODES = 201
_ROWS_AT_ONCE = 50_000  # bounds the memory of the sandwich to some tens of MB


@dataclass(frozen=True, slots=True, eq=False)
class Slopes:
    """Slope and standard error of each rater [W], and the tie parameter nu (0 when nobody tied)."""

    value: Floats
    sd: Floats
    nu: float


def davidson(eta: Floats, nu: float) -> tuple[Floats, Floats, Floats]:
    """log Z, P(tie) and the lead (P(first) - P(second)) / 2, which is the derivative of log Z, at eta of any shape."""
    decay = np.exp(-np.abs(eta) / 2)
    scaled = 1 + decay * (decay + nu)  # Z e^(-|eta|/2), so nothing overflows
    lead = np.copysign((1 - decay * decay) / (2 * scaled), eta)
    return np.abs(eta) / 2 + np.log(scaled), nu * decay / scaled, lead


class MarginalLikelihood:
    """Negative log-likelihood of W slopes and log nu, d integrated out, with its gradient.

    A parameter vector is float [W + 1]: the slopes, then log nu, which is ignored while no vote is a tie.
    """

    def __init__(self, votes: PairVotes) -> None:
        self._votes = votes
        self.has_ties = bool((votes.outcome == 0).any())
        # The trapezoid rule is near exact while its step stays below the width of the integrand, here of d given all
        # the votes on the busiest pair.
        busiest = float(np.bincount(votes.pair).max())
        num_nodes = min(2 * int(np.ceil(_REACH * np.sqrt(0.5 + busiest))) + 1, _MOST_NODES)
        self._nodes = np.linspace(-_REACH, _REACH, num_nodes)
        density = np.exp(-(self._nodes**2) / 4)
        self._log_prior = np.log(density / density.sum())
        answer = (votes.outcome + 1) * votes.num_raters + votes.rater
        shape = (votes.num_pairs, 3 * votes.num_raters)
        self._answers = csr_array((np.ones(len(answer)), (votes.pair, answer)), shape=shape)

    def __call__(self, parameters: Floats) -> tuple[float, Floats]:
        """Value and gradient [W + 1]."""
        posterior, value = self._posterior(parameters)
        by_slope, by_log_nu = self._derivatives(parameters)
        expected = np.asarray(self._answers.T @ posterior).reshape(by_slope.shape)
        return value, -np.append((expected * by_slope).sum((0, 2)), (expected * by_log_nu).sum())

    def information(self, parameters: Floats) -> tuple[Floats, Floats]:
        """H and J [W + 1, W + 1]: squares of the gradient summed over pairs and over items."""
        votes = self._votes
        posterior, _ = self._posterior(parameters)
        by_slope, by_log_nu = self._derivatives(parameters)
        slope_part, nu_part = np.empty(len(votes.pair)), np.empty(len(votes.pair))
        for start in range(0, len(votes.pair), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            belief = posterior[votes.pair[rows]]
            answer = votes.outcome[rows] + 1, votes.rater[rows]
            slope_part[rows] = (belief * by_slope[answer]).sum(1)
            nu_part[rows] = (belief * by_log_nu[answer]).sum(1)
        return (
            self._squares(votes.pair, votes.num_pairs, slope_part, nu_part),
            self._squares(votes.item, votes.num_items, slope_part, nu_part),
        )

    def _squares(self, unit: Ints, num_units: int, slope_part: Floats, nu_part: Floats) -> Floats:
        raters = self._votes.num_raters
        column = np.append(self._votes.rater, np.full(len(unit), raters))
        entries = (np.append(slope_part, nu_part), (np.append(unit, unit), column))
        gradients = csr_array(entries, shape=(num_units, raters + 1))
        return np.asarray((gradients.T @ gradients).toarray(), np.float64)

    def _eta(self, parameters: Floats) -> tuple[Floats, float]:
        return parameters[:-1, None] * self._nodes, float(np.exp(parameters[-1])) if self.has_ties else 0.0

    def _posterior(self, parameters: Floats) -> tuple[Floats, float]:
        """Probability of each node of d given the votes on each pair [pairs, nodes], and the value."""
        eta, nu = self._eta(parameters)
        log_z, _, _ = davidson(eta, nu)
        log_nu = parameters[-1] if self.has_ties else 0.0
        log_answers = np.concatenate((-eta / 2 - log_z, log_nu - log_z, eta / 2 - log_z))
        joint = np.asarray(self._answers @ log_answers)
        joint += self._log_prior
        highest = joint.max(1)
        joint -= highest[:, None]
        np.exp(joint, out=joint)
        total = joint @ np.ones(len(self._nodes))
        joint /= total[:, None]
        return joint, -float((highest + np.log(total)).sum())

    def _derivatives(self, parameters: Floats) -> tuple[Floats, Floats]:
        """Of each answer's log-probability in slope and in log nu: [3, W, nodes], answers -1, 0, +1."""
        eta, nu = self._eta(parameters)
        _, tie, lead = davidson(eta, nu)
        answer = np.array([-1.0, 0.0, 1.0])[:, None, None]
        return self._nodes * (answer / 2 - lead), ((answer == 0) - tie) * float(self.has_ties)


def fit_slopes(votes: PairVotes) -> Slopes:
    """Maximum a posteriori slopes and nu by L-BFGS; priors N(1.7, 1) on slopes, N(0, 3^2) on log nu."""
    likelihood = MarginalLikelihood(votes)
    raters = votes.num_raters
    centre = np.append(np.full(raters, PRIOR_SLOPE), 0.0)
    precision = np.append(np.full(raters, PRIOR_SLOPE_SD**-2), PRIOR_LOG_NU_SD**-2)
    count = np.bincount(votes.rater, minlength=raters)
    scale = 1 / np.sqrt(precision + np.append(count, count.sum()) / 20)  # about the width of each posterior

    def objective(z: Floats) -> tuple[float, Floats]:
        value, gradient = likelihood(scale * z)
        off = scale * z - centre
        return value + float(precision @ off**2) / 2, scale * (gradient + precision * off)

    def minimum(start: Floats) -> Floats:
        found = minimize(objective, start / scale, jac=True, method="L-BFGS-B", options={"gtol": 1e-2, "ftol": 1e-9})
        return np.asarray(scale * found.x, np.float64)

    best = minimum(centre)
    if best[:-1].sum() < 0:
        best = minimum(np.append(-best[:-1], best[-1]))
    curvature, variance = (part + np.diag(precision) for part in likelihood.information(best))
    inverse = np.linalg.inv(curvature)
    sd = np.sqrt(np.diag(inverse @ variance @ inverse))
    return Slopes(best[:-1], sd[:-1], float(np.exp(best[-1])) if likelihood.has_ties else 0.0)
