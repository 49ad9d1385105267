"""Action values of tokens: targets to learn them from, and the losses that do.

The state s_t of a completion is the prompt and the tokens before t, the action its token t, whose reward is r_t.
What stands where `mask` is False is stepped over, as in advantages.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tuneful.functional.precision import widen


@torch.no_grad()
def n_step_targets(rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, num_steps: int | None) -> Tensor:
    """y_t = r_t + gamma r_{t+1} + … + gamma^n V(s_{t+n}), at least float32 [N, T] (Sutton & Barto 2018, section 7.1).

    rewards, values: float [N, T], values those of the states before each token; V is 0 after the last token. mask: bool
    [N, T]. num_steps: n; None: all rewards to the end, and no value. 0 where `mask` is False; without gradient.
    """
    rewards, values = widen(rewards), widen(values)
    targets = torch.zeros_like(rewards)
    for row in range(len(rewards)):
        at = mask[row].nonzero().squeeze(-1)
        length = len(at)
        steps = length if num_steps is None else min(num_steps, length)
        r, v = rewards[row, at], values[row, at]
        y = torch.zeros_like(r)
        for k in range(steps):
            y[: length - k] += gamma**k * r[k:]
        if steps < length:
            y[: length - steps] += gamma**steps * v[steps:]
        targets[row, at] = y
    return targets


def next_values(values: Tensor, mask: Tensor) -> Tensor:
    """V(s_{t+1}) beside each token, [N, T]: that of the next token that counts, 0 after the last. Gradient flows.

    values: float [N, T], of the states before each token; mask: bool [N, T].
    """
    values = widen(values)
    following, columns = values.new_zeros(len(values)), []
    for t in reversed(range(values.shape[1])):
        columns.append(torch.where(mask[:, t], following, 0.0))
        following = torch.where(mask[:, t], values[:, t], following)
    return torch.stack(columns[::-1], dim=-1)


def expectile_loss(difference: Tensor, tau: float) -> Tensor:
    """|tau - 1[u < 0]| u^2 of each u = target - value (Kostrikov et al. 2021, arXiv 2110.06169, eq. 5); float [...].

    tau: between 0 and 1: at 1/2 the mean is learned, towards 1 the largest.
    """
    return torch.where(difference < 0, 1 - tau, tau) * widen(difference).square()


def soft_values(q: Tensor, reference_logprobs: Tensor, *, beta: float) -> Tensor:
    """V = beta log sum_a pi_ref(a) e^(Q(a) / beta), float [...]: the best that these actions reach on a leash.

    q, reference_logprobs: float [..., K], of the same K actions; the reference is normalised over them.
    """
    among = widen(reference_logprobs).log_softmax(-1)
    return beta * torch.logsumexp(among + widen(q) / beta, -1)
