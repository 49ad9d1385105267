"""What a constant added to every reward does to REINFORCE's gradient, on a bandit whose arms can all be counted."""

from __future__ import annotations

import pytest
import torch

from tuneful.algorithms.reinforce import ReinforceConfig, completion_loss
from tuneful.generation.rollout import Rollout
from tuneful.models.forward import Outputs

ARMS = 2
LOGITS = torch.tensor([3.0, 1.0]).log()
"""The first arm has probability 3/4."""


@pytest.mark.parametrize(("constant", "variance"), [(0.0, 3 / 256), (1.0, 75 / 256), (-0.25, 0.0)])
def test_a_constant_changes_the_variance_and_not_the_mean(constant: float, variance: float) -> None:
    """Rewards 1 and 0 and a constant c: the gradient in the first logit is -(1 + c) / 4 or 3 c / 4 by the arm drawn.

    Its mean is -3/16 whatever c is, its variance 3/16 (1/4 + c)^2: least where c is minus the other arm's probability.
    """
    drawn = LOGITS.log_softmax(-1)[:, None]
    mask = torch.ones(ARMS, 1, dtype=torch.bool)
    rollout = Rollout(
        prompts=[[0]] * ARMS,
        completions=[[arm] for arm in range(ARMS)],
        texts=[""] * ARMS,
        group=torch.arange(ARMS),
        finish=["eos"] * ARMS,
        version=torch.zeros(ARMS, dtype=torch.int64),
        temperature=1.0,
        logprobs=drawn,
        sampled_logprobs=drawn,
        mask=mask,
    )
    of_arms = []
    for arm in range(ARMS):
        logits = LOGITS.clone().requires_grad_()
        outputs = Outputs(mask[[arm]], logprobs=logits.log_softmax(-1)[None, [arm]], entropy=torch.zeros(1, 1))
        loss, _ = completion_loss(
            outputs,
            [0],
            rollout=rollout,
            advantages=torch.tensor([1.0, 0.0]) + constant,
            rows=[arm],
            config=ReinforceConfig(),
            num_tokens=1,
        )
        of_arms.append(torch.autograd.grad(loss, logits)[0])
    gradients, probability = torch.stack(of_arms), drawn.exp()
    mean = (probability * gradients).sum(0)
    assert mean.tolist() == pytest.approx([-3 / 16, 3 / 16])
    spread = (probability * (gradients - mean).square()).sum(0)
    assert spread.tolist() == pytest.approx([variance, variance], abs=1e-7)
