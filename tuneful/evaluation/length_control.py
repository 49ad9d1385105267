"""Win rates as they would be if both sides had written equally much (Dubois et al. 2024, arXiv 2404.04475).

Judges like long answers. The remedy is a model of the judge that knows the lengths,

    P(the second answer of model m to instruction x wins) = sigmoid(theta_m + phi_m tanh(d_mx / s_m) + gamma_x)

with d the difference of the lengths, s_m its standard deviation over instructions, phi_m how much length matters, and
gamma_x how much easier instruction x is against this baseline. It is then asked for what it says at d = 0, averaged
over the instructions: mean_x sigmoid(theta_m + gamma_x).

All models of a file are fitted together, since one model alone says nothing about its instructions: gamma has a normal
prior around 0, and the phi of the models one around their mean. How tight the first is, is chosen by cross-validated
log loss. The second is the tightest whose loss is within one standard error of the best: the loss hardly knows how far
the phi differ, and the win rate of a model that is nearly always longer hangs on it. The published fit differs in what
it reads: it takes the difficulties from some two hundred models, and holds phi by judgments of a baseline that was told
to be brief, and to be long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from tuneful.errors import DataError
from tuneful.evaluation.intervals import LEVEL

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DIFFICULTY_PRECISIONS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 100.0)
"""Tried for gamma, in 1 / log-odds squared: from a standard deviation of 3 to .1, where instructions hardly count."""
LENGTH_PRECISIONS = (0.3, 1.0, 3.0, 10.0, 30.0)
"""Tried for phi around its mean: from a standard deviation of 1.8, a taste of each model's own, to .2, one for all."""
_MIDDLE_LENGTH_PRECISION = 3.0  # while gamma's is chosen: that choice hardly depends on it
NUM_FOLDS = 5
NUM_RESAMPLES = 200
_EVEN_PRECISION = 1e-2  # of theta and of the mean phi, so that what always wins has a finite one


@dataclass(frozen=True, slots=True)
class LengthControl:
    """What was fitted, for M models and X instructions."""

    win_rates: Floats
    """[M] length-controlled win rates of the second side, in [0, 1]."""
    low: Floats
    high: Floats
    """[M] ends of their intervals: a bootstrap over instructions, the priors as they were chosen on all of them."""
    length_coefs: Floats
    """[M] phi: how much the judge's log-odds rise when the second side is longer."""
    difficulty_precision: float
    """Of the prior of gamma [X]; the largest one in the grid leaves instructions out."""
    length_precision: float
    """Of the prior of phi around its mean."""


def length_controlled(
    model: Ints,
    instruction: Ints,
    second_wins: Floats,
    length_difference: Floats,
    *,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
    on_progress: Callable[[int, int], None] | None = None,
) -> LengthControl:
    """Fit the judge to N annotations and read it at equal length.

    model, instruction: [N], numbers from 0 without gaps; second_wins: [N] probabilities that the second answer is
    better; length_difference: [N], length of the second answer minus that of the first. seed: folds and
    resamples. on_progress: told how many steps are done, of how many: one for each prior tried and each resample.

    Raises DataError for arrays of unlike length and for fewer annotations than folds.
    """
    if not len(model) == len(instruction) == len(second_wins) == len(length_difference):
        raise DataError("length control needs one model, instruction, preference and length per annotation")
    if len(model) < NUM_FOLDS:
        raise DataError(f"length control needs at least {NUM_FOLDS} annotations, got {len(model)}")
    scaled = _scaled(length_difference, model)
    data = _Data(int(model.max()) + 1, int(instruction.max()) + 1, model, instruction, second_wins, scaled)
    num_steps = len(DIFFICULTY_PRECISIONS) + len(LENGTH_PRECISIONS) + num_resamples
    done = count(1)

    def step() -> None:
        if on_progress is not None:
            on_progress(next(done), num_steps)

    folds = np.random.default_rng(seed).permutation(len(model)) % NUM_FOLDS
    priors = _chosen_priors(data, folds, step)
    fit = _fit(data, *priors)
    rates = _resampled(data, fit, priors, seed=seed, num_resamples=num_resamples, step=step)
    low, high = np.quantile(rates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return LengthControl(fit.at_equal_length(), low, high, fit.phi, *priors)


@dataclass(frozen=True, slots=True)
class _Data:
    """N annotations of M models' answers to X instructions."""

    num_models: int
    num_instructions: int
    model: Ints
    """[N], below M."""
    instruction: Ints
    """[N], below X."""
    wins: Floats
    """[N] probabilities that the second answer is better."""
    length: Floats
    """[N] tanh(d / s), see `_scaled`."""

    def drawn(self, instructions: Ints) -> _Data:
        """The annotations of these instructions [X], of one that is drawn twice as those of two."""
        order = np.argsort(self.instruction, kind="stable")
        rows_of = np.split(order, np.cumsum(np.bincount(self.instruction, minlength=self.num_instructions))[:-1])
        rows = np.concatenate([rows_of[x] for x in instructions])
        renamed = np.repeat(np.arange(len(instructions)), [len(rows_of[x]) for x in instructions])
        return replace(
            self, model=self.model[rows], instruction=renamed, wins=self.wins[rows], length=self.length[rows]
        )


@dataclass(frozen=True, slots=True)
class _Fit:
    """The judge as fitted, in log-odds that the second answer wins."""

    theta: Floats
    """[M] merits of the models."""
    phi: Floats
    """[M] how much length matters."""
    gamma: Floats
    """[X] how much easier the instructions are."""

    def logits(self, data: _Data) -> Floats:
        """[N] what it says of every annotation."""
        return self.theta[data.model] + self.phi[data.model] * data.length + self.gamma[data.instruction]

    def at_equal_length(self) -> Floats:
        """[M] means over the instructions of what the judge would say."""
        means: Floats = expit(self.theta[:, None] + self.gamma).mean(axis=1)
        return means


class _Priors(NamedTuple):
    """How tight the priors are."""

    difficulty_precision: float
    length_precision: float


def _chosen_priors(data: _Data, folds: Ints, step: Callable[[], None]) -> _Priors:
    """The priors that cross-validation over `folds` [N] chooses.

    One after the other, not all pairs: the two hardly speak to each other.
    """

    def losses(difficulty_precision: float, length_precision: float) -> Floats:
        """[N] log loss of each annotation under the fit to the other folds."""
        found = np.zeros(len(folds))
        for k in range(NUM_FOLDS):
            fit = _fit(data, difficulty_precision, length_precision, counted=folds != k)
            found[folds == k] = _log_loss(fit.logits(data), data.wins)[folds == k]
        step()
        return found

    difficulty_precision = min(
        DIFFICULTY_PRECISIONS, key=lambda precision: losses(precision, _MIDDLE_LENGTH_PRECISION).sum()
    )
    tried = {precision: losses(difficulty_precision, precision) for precision in LENGTH_PRECISIONS}
    return _Priors(difficulty_precision, _tightest(tried, data.instruction))


def _resampled(
    data: _Data, fit: _Fit, priors: _Priors, *, seed: int, num_resamples: int, step: Callable[[], None]
) -> Floats:
    """[num_resamples, M] win rates at equal length, fitted anew to instructions drawn with replacement."""
    rates = np.empty((num_resamples, data.num_models))
    rng = np.random.default_rng(seed)
    for number in range(num_resamples):
        drawn = rng.integers(data.num_instructions, size=data.num_instructions)
        again = _fit(data.drawn(drawn), *priors, start=replace(fit, gamma=fit.gamma[drawn]))
        rates[number] = again.at_equal_length()
        step()
    return rates


def _scaled(difference: Floats, model: Ints) -> Floats:
    """tanh of the differences over their standard deviation, model by model; 0 where all of them are equal."""
    scaled = np.zeros(len(model))
    for m in np.unique(model):
        own = difference[model == m]
        spread = own.std()
        scaled[model == m] = np.tanh(own / spread) if spread > 0 else 0.0
    return scaled


def _fit(
    data: _Data,
    difficulty_precision: float,
    length_precision: float,
    *,
    counted: NDArray[np.bool_] | None = None,
    start: _Fit | None = None,
) -> _Fit:
    """The most likely parameters given the annotations that are `counted` [N], or all, sought from `start`."""
    weights = np.ones(len(data.model)) if counted is None else counted.astype(np.float64)

    def unpacked(packed: Floats) -> tuple[_Fit, float]:
        theta, phi, gamma = np.split(packed[1:], [data.num_models, 2 * data.num_models])
        return _Fit(theta, phi, gamma), float(packed[0])

    def objective(packed: Floats) -> tuple[float, Floats]:
        fit, mean_phi = unpacked(packed)
        logits = fit.logits(data)
        away = fit.phi - mean_phi
        misfit = float(np.sum(weights * _log_loss(logits, data.wins)))  # a dot of so many would wake BLAS's threads
        spread = float(
            _EVEN_PRECISION * (fit.theta @ fit.theta + mean_phi**2)
            + length_precision * away @ away
            + difficulty_precision * fit.gamma @ fit.gamma
        )
        error = weights * (expit(logits) - data.wins)
        gradient: list[Floats] = [
            np.array([_EVEN_PRECISION * mean_phi - length_precision * away.sum()]),
            np.bincount(data.model, error, data.num_models) + _EVEN_PRECISION * fit.theta,
            np.bincount(data.model, error * data.length, data.num_models) + length_precision * away,
            np.bincount(data.instruction, error, data.num_instructions) + difficulty_precision * fit.gamma,
        ]
        return misfit + spread / 2, np.concatenate(gradient)

    first = np.zeros(1 + 2 * data.num_models + data.num_instructions)
    if start is not None:
        first = np.concatenate([[start.phi.mean()], start.theta, start.phi, start.gamma])
    found = minimize(objective, first, jac=True, method="L-BFGS-B", options={"maxiter": 1000})
    return unpacked(np.asarray(found.x))[0]


def _tightest(losses: Mapping[float, Floats], instruction: Ints) -> float:
    """The highest precision whose loss is within one standard error of the least (Breiman et al. 1984, section 3.4).

    losses: precision to the held-out log loss of each annotation [N]. The standard error is that of the difference to
    the least, over instructions.
    """
    least = min(losses.values(), key=lambda loss: float(loss.sum()))

    def is_near(loss: Floats) -> bool:
        excess = np.bincount(instruction, loss - least)
        return bool(excess.sum() <= excess.std() * len(excess) ** 0.5)

    return max(precision for precision, loss in losses.items() if is_near(loss))


def _log_loss(logits: Floats, wins: Floats) -> Floats:
    return np.logaddexp(0, logits) - wins * logits
