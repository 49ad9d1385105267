"""The learners, as they are, on two problems where it is known what they must reach.

Those of TRAIN go to the optimum. GRPO, which divides by its groups' spread, and DPO's variants have fixed points of
their own. ORPO, SimPO and KTO have others again, which depend on lengths and on how many answers are good; of them it
is asked that they go the right way.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import comb, e, exp, log
from typing import Any

import pytest

from tests.end_to_end.ladder import (
    BANDIT,
    TARGET,
    TOKEN_MDP,
    StringProblem,
    train_dpo,
    train_kto,
    train_on_policy,
    train_orpo,
    train_simpo,
)
from tuneful.evaluation.best_of_n import expected_best

TRAIN: dict[str, Callable[[StringProblem, int], list[float]]] = {
    **{
        name: partial(train_on_policy, name) for name in ("reinforce", "rloo", "dr. grpo", "a2c", "ppo", "nlpo", "trpo")
    },
    "dpo": train_dpo,
}
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


@pytest.mark.parametrize("train", TRAIN)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_bandit(train: str, seed: int) -> None:
    first, second = TRAIN[train](BANDIT, seed)
    assert first == pytest.approx(e / (1 + e), abs=0.01)  # .731059
    assert first + second == pytest.approx(1)


WIN = e / (1 + e)
"""How often Bradley-Terry voters prefer the better arm, whose reward is 1 higher."""
NOISY = 0.9 * WIN + 0.1 * (1 - WIN)
CLEAN = (WIN - 0.1) / 0.8
FIXED_POINTS: list[tuple[dict[str, Any], float]] = [
    # With beta 1 and a uniform reference h is the log-odds of the arms.
    ({"label_noise": 0.1}, log(NOISY / (1 - NOISY))),
    ({"loss": "robust", "label_noise": 0.1}, log(CLEAN / (1 - CLEAN))),
    # h per token is (2 p - 1) / 2 there, and an arm and its end are two tokens, the end certain.
    ({"loss": "ipo"}, 2 * (2 * WIN - 1) / 2),
]


@pytest.mark.parametrize(("settings", "log_odds"), FIXED_POINTS, ids=["conservative", "robust", "ipo"])
@pytest.mark.parametrize("seed", SEEDS)
def test_variants_of_dpo_reach_their_own_fixed_points(settings: dict[str, Any], log_odds: float, seed: int) -> None:
    first, _ = train_dpo(BANDIT, seed, **settings)
    assert first == pytest.approx(1 / (1 + exp(-log_odds)), abs=0.01)


def test_the_fixed_points_by_hand() -> None:
    """p = .731: conservative .685, robust .789, IPO .614; all apart by more than what the test above allows."""
    found = [1 / (1 + exp(-log_odds)) for _, log_odds in FIXED_POINTS]
    assert found == pytest.approx([0.6848, 0.7888, 0.6135], abs=1e-4)


@pytest.mark.parametrize("train", [train_orpo, train_simpo, train_kto])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_better_arm_of_the_bandit_becomes_likelier(
    train: Callable[[StringProblem, int], list[float]], seed: int
) -> None:
    first, second = train(BANDIT, seed)
    assert first > 0.65
    assert first + second == pytest.approx(1)


@pytest.mark.parametrize("train", TRAIN)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_token_mdp(train: str, seed: int) -> None:
    probabilities = TRAIN[train](TOKEN_MDP, seed)
    assert TOKEN_MDP.score(probabilities) >= 0.95
    for place, wanted in enumerate(TARGET):
        right = sum(p for p, s in zip(probabilities, TOKEN_MDP.strings, strict=True) if s[place] == wanted)
        assert right == pytest.approx(0.753, abs=0.05)


@pytest.mark.parametrize(
    ("size", "estimator", "share"), [(2, "k3", 0.7071), (8, "k3", 0.818), (2, "k2", 0.7311), (8, "k2", 0.9142)]
)
@pytest.mark.parametrize("seed", SEEDS)
def test_where_grpo_comes_to_rest(size: int, estimator: str, share: float, seed: int) -> None:
    """Seldom at the optimum, .7311: E sqrt(m (1 - m)), m the first arm's share of a group of G drawn with p, against
    the slope of the KL.

    An arm's log-probability has slope 1 - p or -p in the logits' difference, advantages are (1 - m) / s and -m / s with
    s = sqrt(m (1 - m)), so the mean gradient is E s. The slope of KL(reference, policy), which k3 has, is p - 1/2, that
    of KL(policy, reference), which k2 has, p (1 - p) log(p / (1 - p)).
    """
    slope = share - 0.5 if estimator == "k3" else share * (1 - share) * log(share / (1 - share))
    binomial = [comb(size, k) * share**k * (1 - share) ** (size - k) for k in range(size + 1)]
    spread = sum(weight * (k / size * (1 - k / size)) ** 0.5 for k, weight in enumerate(binomial))
    assert spread == pytest.approx(slope, abs=1e-3)
    assert train_on_policy(f"grpo of {size}, {estimator}", BANDIT, seed)[0] == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("seed", SEEDS)
def test_raft_gains_by_its_choice(seed: int) -> None:
    """A uniform policy's mean reward is .2; imitating the best of 8 comes near 1, imitating any leaves it about."""

    def mean_reward(name: str) -> float:
        probabilities = train_on_policy(name, TOKEN_MDP, seed)
        return sum(p * TOKEN_MDP.reward(s) for p, s in zip(probabilities, TOKEN_MDP.strings, strict=True))

    assert mean_reward("raft") > 0.9
    assert mean_reward("raft, by lot") < 0.5


@pytest.mark.parametrize("n", [1, 2, 4, 8])
def test_the_best_of_n_coins(n: int) -> None:
    """A coin that falls on 1 with p = .3: the best of n is 1 with 1 - (1 - p)^n. Of N flips of which k are 1, the
    estimate from them is the mean over all sets of n; over all k as often as they come, it is that."""
    p, size = 0.3, 8
    often = [comb(size, k) * p**k * (1 - p) ** (size - k) for k in range(size + 1)]
    flips = [[1.0] * k + [0.0] * (size - k) for k in range(size + 1)]
    found = expected_best(flips, flips, n)
    assert sum(w * f for w, f in zip(often, found, strict=True)) == pytest.approx(1 - (1 - p) ** n)
