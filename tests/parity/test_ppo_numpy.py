"""The numbers of PPO against a second implementation: plain loops over ragged lists in float64, no mask anywhere.

It is written from the formulas (Ziegler et al. 2019; Schulman et al. 2016 and 2017), one token at a time, with the
gradients derived by hand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tuneful.functional.advantages import gae, shape_rewards
from tuneful.functional.masking import whiten
from tuneful.functional.policy_losses import ppo_clip_loss
from tuneful.functional.value_losses import clipped_value_loss

KL_COEF, GAMMA, LAM, CLIP, VALUE_CLIP = 0.3, 0.97, 0.9, 0.2, 0.15

Ragged = list[list[float]]


def shaped_rewards(scores: list[float], policy: Ragged, reference: Ragged) -> Ragged:
    rewards = []
    for score, policy_row, reference_row in zip(scores, policy, reference, strict=True):
        row = []
        for i in range(len(policy_row)):
            reward = -KL_COEF * (policy_row[i] - reference_row[i])
            if i == len(policy_row) - 1:
                reward += score
            row.append(reward)
        rewards.append(row)
    return rewards


def advantages_and_returns(rewards: Ragged, values: Ragged) -> tuple[Ragged, Ragged]:
    """The definition as a double sum, A_t = sum_l (gamma lam)^l delta_{t+l}, not the recursion."""
    advantages, returns = [], []
    for reward_row, value_row in zip(rewards, values, strict=True):
        length = len(reward_row)
        following = [*value_row[1:], 0.0]
        deltas = [reward_row[i] + GAMMA * following[i] - value_row[i] for i in range(length)]
        row = []
        for t in range(length):
            total = 0.0
            for step in range(length - t):
                total += (GAMMA * LAM) ** step * deltas[t + step]
            row.append(total)
        advantages.append(row)
        returns.append([row[i] + value_row[i] for i in range(length)])
    return advantages, returns


def whitened(rows: Ragged) -> Ragged:
    everything = np.array([number for row in rows for number in row])
    mean = everything.mean()
    spread = np.sqrt(((everything - mean) ** 2).mean() + 1e-8)
    return [[(number - mean) / spread for number in row] for row in rows]


@dataclass
class Outcome:
    loss: float
    clip_fraction: float
    gradient: Ragged


def policy_outcome(new: Ragged, old: Ragged, advantages: Ragged) -> Outcome:
    num_tokens = sum(len(row) for row in new)
    loss, clipped, gradient = 0.0, 0, []
    for new_row, old_row, advantage_row in zip(new, old, advantages, strict=True):
        row = []
        for logprob, old_logprob, advantage in zip(new_row, old_row, advantage_row, strict=True):
            ratio = np.exp(logprob - old_logprob)
            held_ratio = min(max(ratio, 1 - CLIP), 1 + CLIP)
            if -advantage * held_ratio > -advantage * ratio:
                loss += -advantage * held_ratio
                clipped += 1
                row.append(0.0)
            else:
                loss += -advantage * ratio
                row.append(-advantage * ratio / num_tokens)
        gradient.append(row)
    return Outcome(loss / num_tokens, clipped / num_tokens, gradient)


def value_outcome(values: Ragged, old: Ragged, returns: Ragged) -> Outcome:
    num_tokens = sum(len(row) for row in values)
    loss, clipped, gradient = 0.0, 0, []
    for value_row, old_row, return_row in zip(values, old, returns, strict=True):
        row = []
        for value, old_value, target in zip(value_row, old_row, return_row, strict=True):
            held = min(max(value, old_value - VALUE_CLIP), old_value + VALUE_CLIP)
            if (held - target) ** 2 > (value - target) ** 2:
                loss += 0.5 * (held - target) ** 2
                clipped += 1
                row.append(0.0)
            else:
                loss += 0.5 * (value - target) ** 2
                row.append((value - target) / num_tokens)
        gradient.append(row)
    return Outcome(loss / num_tokens, clipped / num_tokens, gradient)


class Layout:
    """Where the tokens of ragged rows stand in a [N, T] tensor: random columns, so that holes lie inside rows too."""

    def __init__(self, random: np.random.Generator, num_rows: int, width: int) -> None:
        self.mask = random.random((num_rows, width)) < 0.6
        self.mask[0] = False  # a completion without a token of its own
        self.mask[1] = True
        self.lengths = self.mask.sum(1).tolist()

    def tensor(self, rows: Ragged, filling: float = 0.0) -> Tensor:
        grid = np.full(self.mask.shape, filling)
        grid[self.mask] = [number for row in rows for number in row]
        return torch.from_numpy(grid)


@pytest.mark.parametrize("seed", range(20))
def test_one_ppo_iteration(seed: int) -> None:
    random = np.random.default_rng(seed)
    layout = Layout(random, num_rows=int(random.integers(2, 9)), width=int(random.integers(1, 13)))
    mask = torch.from_numpy(layout.mask)

    def draw(scale: float) -> Ragged:
        return [(scale * random.standard_normal(length)).tolist() for length in layout.lengths]

    def moved(rows: Ragged) -> Ragged:
        return [[number + 0.3 * random.standard_normal() for number in row] for row in rows]

    scores = random.standard_normal(len(layout.lengths)).tolist()
    old, reference, old_values = draw(2.0), draw(2.0), draw(1.0)
    new, values = moved(old), moved(old_values)
    stray = 50.0  # stands where nothing counts

    rewards = shaped_rewards(scores, old, reference)
    shaped = shape_rewards(
        torch.tensor(scores, dtype=torch.float64),
        layout.tensor(old, stray),
        layout.tensor(reference, -stray),
        mask,
        kl_coef=KL_COEF,
    )
    assert_close(shaped, layout.tensor(rewards))

    advantages, returns = advantages_and_returns(rewards, old_values)
    found = gae(shaped, layout.tensor(old_values, stray), mask, gamma=GAMMA, lam=LAM)
    assert_close(found, (layout.tensor(advantages), layout.tensor(returns)))

    white = whitened(advantages)
    assert_close(whiten(found[0], mask), layout.tensor(white))

    num_tokens = int(mask.sum())
    expected = policy_outcome(new, old, white)
    logprobs = layout.tensor(new, stray).requires_grad_()
    policy = ppo_clip_loss(
        logprobs, layout.tensor(old, -stray), layout.tensor(white, stray), mask, clip=CLIP, num_tokens=num_tokens
    )
    policy.loss.backward()
    assert_close(policy.loss.item(), expected.loss)
    assert_close(policy.clip_fraction.item(), expected.clip_fraction)
    assert_close(logprobs.grad, layout.tensor(expected.gradient))

    expected = value_outcome(values, old_values, returns)
    predicted = layout.tensor(values, stray).requires_grad_()
    value = clipped_value_loss(
        predicted,
        layout.tensor(old_values, -stray),
        layout.tensor(returns, stray),
        mask,
        clip=VALUE_CLIP,
        num_tokens=num_tokens,
    )
    value.loss.backward()
    assert_close(value.loss.item(), expected.loss)
    assert_close(value.clip_fraction.item(), expected.clip_fraction)
    assert_close(predicted.grad, layout.tensor(expected.gradient))
