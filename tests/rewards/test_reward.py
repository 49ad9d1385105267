"""What stands between a reward and the learner: shape, finiteness, and the penalty for completions that never ended."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tuneful.errors import RewardError
from tuneful.records import Completion, Finish, Prompt
from tuneful.rewards.reward import checked, penalise_missing_end

PROMPTS = [Prompt("a"), Prompt("b"), Prompt("c")]
COMPLETIONS = [Completion("yes"), Completion("please do that now"), Completion("no")]


def test_scores_become_float32() -> None:
    for given in ([1, 2, 3], np.array([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 3.0], requires_grad=True)):
        scores = checked(lambda p, c, given=given: given, PROMPTS, COMPLETIONS)  # type: ignore[misc]
        assert scores.dtype == torch.float32
        assert not scores.requires_grad
        assert scores.tolist() == [1, 2, 3]


@pytest.mark.parametrize("given", [torch.zeros(2), torch.zeros(3, 1), torch.tensor(0.0)])
def test_a_wrong_shape(given: Tensor) -> None:
    with pytest.raises(RewardError) as error:
        checked(lambda p, c: given, PROMPTS, COMPLETIONS)
    assert str(error.value) == (
        f"the reward returned shape {tuple(given.shape)} for 3 completions; it must return one number each, shape (3,)"
    )


@pytest.mark.parametrize("given", [None, {"a": 1}, ["good", None, "bad"]])
def test_what_is_no_number(given: object) -> None:
    with pytest.raises(RewardError) as error:
        checked(lambda p, c: given, PROMPTS, COMPLETIONS)  # type: ignore[arg-type, return-value]
    assert str(error.value) == (
        f"the reward returned {given} for 3 completions; it must return one number each, shape (3,)"
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite(bad: float) -> None:
    with pytest.raises(RewardError) as error:
        checked(lambda p, c: torch.tensor([0.0, bad, bad]), PROMPTS, COMPLETIONS)
    assert str(error.value) == (
        f'the reward is {bad} for 2 of 3 completions, the first being "please do that now"; '
        "a reward must be finite for every text"
    )


@pytest.mark.parametrize(("finish", "taken"), [("eos", 0), ("stop", 0), (None, 0), ("length", 1.5), ("abort", 1.5)])
def test_the_penalty_for_a_missing_end(finish: Finish | None, taken: float) -> None:
    scores = penalise_missing_end(torch.tensor([2.0]), [Completion("x", finish=finish)], 1.5)
    assert scores.tolist() == [2 - taken]
