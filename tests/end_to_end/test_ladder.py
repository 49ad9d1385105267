"""PPO and DPO, as they are, reach the optimum of two problems where it is known."""

from __future__ import annotations

from collections.abc import Callable
from math import e

import pytest

from tests.end_to_end.ladder import BANDIT, TARGET, TOKEN_MDP, StringProblem, train_dpo, train_ppo

Train = Callable[[StringProblem, int], list[float]]
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in (1, 2))]


def test_the_optimum_by_hand() -> None:
    # e^(.25 / .1) = 12.18, so each position is right with 12.18 / 16.18 = .753 and J* = 4 * .1 * log(16.18 / 5) = .470.
    right = e**2.5 / (e**2.5 + 4)
    assert right == pytest.approx(0.753, abs=5e-4)
    best = [1.0] * len(TOKEN_MDP.strings)
    for k, string in enumerate(TOKEN_MDP.strings):
        for said, wanted in zip(string, TARGET, strict=True):
            best[k] *= right if said == wanted else (1 - right) / 4
    assert TOKEN_MDP.reference_objective == pytest.approx(0.2)
    assert TOKEN_MDP.best_objective == pytest.approx(0.4698, abs=1e-4)
    assert TOKEN_MDP.score(best) == pytest.approx(1)
    assert TOKEN_MDP.score([1 / 625] * 625) == pytest.approx(0)
    assert TOKEN_MDP.score([float(s == tuple(TARGET)) for s in TOKEN_MDP.strings]) < 0.6  # no prize for hacking


@pytest.mark.parametrize("train", [train_ppo, train_dpo])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_bandit(train: Train, seed: int) -> None:
    first, second = train(BANDIT, seed)
    assert first == pytest.approx(e / (1 + e), abs=0.01)  # .731059
    assert first + second == pytest.approx(1)


@pytest.mark.parametrize("train", [train_ppo, train_dpo])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_token_mdp(train: Train, seed: int) -> None:
    probabilities = train(TOKEN_MDP, seed)
    assert TOKEN_MDP.score(probabilities) >= 0.95
    for place, wanted in enumerate(TARGET):
        right = sum(p for p, s in zip(probabilities, TOKEN_MDP.strings, strict=True) if s[place] == wanted)
        assert right == pytest.approx(0.753, abs=0.05)
