"""From the score of a whole completion to the advantage of each of its tokens.

A completion is the string of its counted tokens. Uncounted ones may stand past its end or inside it, where a tool put
text in; both are stepped over as if they were not there.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from tuneful.functional.kl import k1
from tuneful.functional.precision import widen


def shape_rewards(
    scores: Tensor, logprobs: Tensor, reference_logprobs: Tensor, mask: Tensor, *, kl_coef: float
) -> Tensor:
    """Reward of each token: minus its share of the KL penalty, and the score on the last token that counts.

    r_t = -kl_coef * (log policy - log reference)_t + [t is last] * score (Ziegler et al. 2019, section 2), so that the
    rewards of a completion sum to score - kl_coef * sum of k1.
    scores: float [N]; logprobs, reference_logprobs: float [N, T], recorded when the tokens were sampled; mask: bool
    [N, T]; kl_coef: score units per nat. Returns at least float32 [N, T], 0 where `mask` is False; a row in which
    nothing counts gets nothing.
    """
    penalty = (-kl_coef * k1(logprobs, reference_logprobs)).masked_fill(~mask, 0.0)
    return penalty + rewards_at_end(scores, mask)


def rewards_at_end(scores: Tensor, mask: Tensor) -> Tensor:
    """Of each row the score on its last token that counts, at least float32 [N, T], and 0 elsewhere.

    scores: float [N]; mask: bool [N, T].
    """
    counted_from_here = mask.flip(-1).cumsum(-1).flip(-1)
    last = mask & (counted_from_here == 1)
    return torch.where(last, widen(scores).unsqueeze(-1), 0.0)


@torch.no_grad()
def gae(rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016, eq. 16): advantages and returns, both [N, T].

    delta_t = r_t + gamma V_{t+1} - V_t, A_t = delta_t + gamma lam A_{t+1}, return_t = A_t + V_t, where t+1 is the next
    token that counts, and V and A are 0 after the last one. lam = 1 gives the Monte-Carlo return minus the value.
    rewards, values: float [N, T], values as recorded when the tokens were sampled; mask: bool [N, T]. Returns at least
    float32, 0 where `mask` is False, without gradient.
    """
    rewards, values = widen(rewards), widen(values)
    advantages = torch.zeros_like(rewards)
    next_value = next_advantage = rewards.new_zeros(rewards.shape[0])
    for t in reversed(range(rewards.shape[1])):
        counts = mask[:, t]
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        next_advantage = torch.where(counts, delta + gamma * lam * next_advantage, next_advantage)
        next_value = torch.where(counts, values[:, t], next_value)
        advantages[:, t] = torch.where(counts, next_advantage, 0.0)
    return advantages, (advantages + values).masked_fill(~mask, 0.0)


def leave_one_out(scores: Tensor, size: int) -> Tensor:
    """Of each score the mean of the others in its group, at least float32 [N] (Kool et al. 2019; arXiv 2402.14740).

    scores: float [N], N a multiple of `size`, groups one after the other; size: at least 2.
    """
    groups = widen(scores).view(-1, size)
    return ((groups.sum(-1, keepdim=True) - groups) / (size - 1)).flatten()


def group_advantages(scores: Tensor, size: int, *, spread: Literal["sample", "population", "none"]) -> Tensor:
    """(score - mean of its group) / (standard deviation of its group + 1e-4), at least float32 [N].

    As in GRPO (arXiv 2402.03300, section 4.1.2). A group whose scores are all equal has advantages of 0.
    scores: float [N], N a multiple of `size`, groups one after the other; size: at least 2. spread: the standard
    deviation divides by size - 1, by size, or there is none, as in Dr. GRPO (arXiv 2503.20783).
    """
    groups = widen(scores).view(-1, size)
    equal = groups.amax(-1, keepdim=True) == groups.amin(-1, keepdim=True)  # rounding would leave a mean beside them
    away = (groups - groups.mean(-1, keepdim=True)).masked_fill(equal, 0.0)
    if spread != "none":
        away = away / (groups.std(-1, keepdim=True, correction=int(spread == "sample")) + 1e-4)
    return away.flatten()
