"""Ensembles: three ways to make one score of several, worked by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import tensor
from torch.testing import assert_close

from tuneful.errors import ConfigError, RewardError
from tuneful.records import Completion, Prompt
from tuneful.rewards.ensemble import Combine, Ensemble, combined
from tuneful.rewards.load import load_reward

PROMPTS = [Prompt("a"), Prompt("b")]
COMPLETIONS = [Completion("one two three"), Completion("one")]


@pytest.mark.parametrize(
    ("combine", "variance_coef", "expected"),
    [
        ("mean", None, [2.0, 2.0]),
        ("worst", None, [1.0, 2.0]),
        # of 1, 2, 3 the mean square about 2 is 2/3, so 2 - 0.3 * 2/3 = 1.8; where all agree nothing is taken off
        ("mean_minus_variance", 0.3, [1.8, 2.0]),
    ],
)
def test_by_hand(combine: Combine, variance_coef: float | None, expected: list[float]) -> None:
    scores = tensor([[1.0, 2.0], [2.0, 2.0], [3.0, 2.0]])
    assert_close(combined(scores, combine, variance_coef), tensor(expected))


def test_members_are_any_rewards(tmp_path: Path) -> None:
    """Words 3 and 1: `longer` 3 and 1, `shorter` -3 and -1, a function 2 and 2."""
    (tmp_path / "mine.py").write_text("def two(prompts, completions):\n    return [2.0] * len(completions)\n")
    members = ("longer", "shorter", f"{tmp_path}/mine.py:two")
    assert load_reward(Ensemble(ensemble=members, combine="worst"))(PROMPTS, COMPLETIONS).tolist() == [-3, -1]
    mean = load_reward(Ensemble(ensemble=members))(PROMPTS, COMPLETIONS)
    assert_close(mean, tensor([2 / 3, 2 / 3]))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ensemble": ("longer",)}, "ensemble: needs at least 2 members, got 1; write a single one as reward itself"),
        ({"combine": "mean_minus_variance"}, 'variance_coef goes with combine = "mean_minus_variance"'),
        ({"combine": "worst", "variance_coef": 0.1}, 'variance_coef goes with combine = "mean_minus_variance"'),
        (
            {"combine": "mean_minus_variance", "variance_coef": -1},
            "ensemble: variance_coef must be at least 0, got -1",
        ),
    ],
)
def test_what_cannot_be(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        Ensemble(**{"ensemble": ("longer", "shorter")} | settings)
    assert said in str(error.value)


def test_a_member_that_does_not_exist_is_named() -> None:
    with pytest.raises(RewardError, match='reward "longr": no such model directory or rule; did you mean "longer"'):
        load_reward(Ensemble(ensemble=("shorter", "longr")))
