"""Win rates as they would be if both sides had written equally much (Dubois et al. 2024, arXiv 2404.04475).

Judges like long answers. The remedy is a model of the judge that knows the lengths,

    P(the second answer of model m to instruction x wins) = sigmoid(theta_m + phi_m tanh(d_mx / s_m) + gamma_x)

with d the difference of the lengths, s_m its standard deviation over instructions, phi_m how much length matters, and
gamma_x how much easier instruction x is against this baseline. It is then asked for what it says at d = 0, averaged
over the instructions: mean_x sigmoid(theta_m + gamma_x).

All models of a file are fitted together, since one model alone says nothing about its instructions: gamma has a normal
prior around 0, and the phi of the models one around their mean. How tight the two priors are is chosen by
cross-validated log loss. The published fit differs in what it reads: it takes the difficulties from some two hundred
models, and holds phi by judgments of a baseline that was told to be brief, and to be long.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from tuneful.errors import DataError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DIFFICULTY_PRECISIONS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 100.0)
LENGTH_PRECISIONS = (0.3, 1.0, 3.0, 10.0, 30.0)
NUM_FOLDS = 5
_EVEN_PRECISION = 1e-3  # of theta, so that a model that always wins has a finite one


@dataclass(frozen=True, slots=True)
class LengthControl:
    """What was fitted, for M models and X instructions."""

    win_rates: Floats
    """[M] length-controlled win rates of the second side, in [0, 1]."""
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
    on_progress: Callable[[int, int], None] | None = None,
) -> LengthControl:
    """Fit the judge to N annotations and read it at equal length.

    model, instruction: [N], numbers from 0 without gaps; second_wins: [N] probabilities that the second answer is
    better; length_difference: [N], length of the second answer minus that of the first. seed: the folds. on_progress:
    told how many of the fits that choose the priors are done, of how many.

    Raises DataError for arrays of unlike length and for fewer annotations than folds.
    """
    if not len(model) == len(instruction) == len(second_wins) == len(length_difference):
        raise DataError("length control needs one model, instruction, preference and length per annotation")
    if len(model) < NUM_FOLDS:
        raise DataError(f"length control needs at least {NUM_FOLDS} annotations, got {len(model)}")
    data = _Data(model, instruction, second_wins, _scaled(length_difference, model))
    folds = np.random.default_rng(seed).permutation(len(model)) % NUM_FOLDS
    num_fits = len(DIFFICULTY_PRECISIONS) + len(LENGTH_PRECISIONS)
    done = 0

    def loss(difficulty: float, length: float) -> float:
        nonlocal done
        total = sum(_held_out_loss(data, folds == k, difficulty, length) for k in range(NUM_FOLDS))
        done += 1
        if on_progress is not None:
            on_progress(done, num_fits)
        return total

    # One after the other, not all pairs: the two hardly speak to each other.
    difficulty = min(DIFFICULTY_PRECISIONS, key=lambda precision: loss(precision, 3.0))
    length = min(LENGTH_PRECISIONS, key=lambda precision: loss(difficulty, precision))
    fit = _fit(data, np.ones(len(model)), difficulty, length)
    return LengthControl(expit(fit.theta[:, None] + fit.gamma).mean(axis=1), fit.phi, difficulty, length)


@dataclass(frozen=True, slots=True)
class _Data:
    model: Ints
    instruction: Ints
    wins: Floats
    length: Floats


@dataclass(frozen=True, slots=True)
class _Fit:
    theta: Floats
    phi: Floats
    gamma: Floats

    def logits(self, data: _Data) -> Floats:
        return self.theta[data.model] + self.phi[data.model] * data.length + self.gamma[data.instruction]


def _scaled(difference: Floats, model: Ints) -> Floats:
    """tanh of the differences over their standard deviation, model by model; 0 where all of them are equal."""
    scaled = np.zeros(len(model))
    for m in np.unique(model):
        own = difference[model == m]
        spread = own.std()
        scaled[model == m] = np.tanh(own / spread) if spread > 0 else 0.0
    return scaled


def _fit(data: _Data, weights: Floats, difficulty: float, length: float) -> _Fit:
    """The most likely parameters given annotations that count by `weights` [N], 0 or 1."""
    num_models, num_instructions = int(data.model.max()) + 1, int(data.instruction.max()) + 1

    def unpacked(packed: Floats) -> tuple[_Fit, float]:
        theta, phi, gamma = np.split(packed[1:], [num_models, 2 * num_models])
        return _Fit(theta, phi, gamma), float(packed[0])

    def objective(packed: Floats) -> tuple[float, Floats]:
        fit, mean_phi = unpacked(packed)
        logits = fit.logits(data)
        away = fit.phi - mean_phi
        misfit = float(weights @ _log_loss(logits, data.wins))
        spread = float(
            _EVEN_PRECISION * fit.theta @ fit.theta + length * away @ away + difficulty * fit.gamma @ fit.gamma
        )
        error = weights * (expit(logits) - data.wins)
        gradient: list[Floats] = [
            np.array([-length * away.sum()]),
            np.bincount(data.model, error, num_models) + _EVEN_PRECISION * fit.theta,
            np.bincount(data.model, error * data.length, num_models) + length * away,
            np.bincount(data.instruction, error, num_instructions) + difficulty * fit.gamma,
        ]
        return misfit + spread / 2, np.concatenate(gradient)

    start = np.zeros(1 + 2 * num_models + num_instructions)
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000})
    return unpacked(np.asarray(found.x))[0]


def _held_out_loss(data: _Data, held_out: NDArray[np.bool_], difficulty: float, length: float) -> float:
    logits = _fit(data, (~held_out).astype(np.float64), difficulty, length).logits(data)
    return float(_log_loss(logits, data.wins)[held_out].sum())


def _log_loss(logits: Floats, wins: Floats) -> Floats:
    return np.logaddexp(0, logits) - wins * logits
