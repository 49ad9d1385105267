"""Losses that move a policy along its advantages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tuneful.functional.kl import k2, k3
from tuneful.functional.masking import masked_sum
from tuneful.functional.precision import widen


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """A policy loss and what to watch beside it, each a scalar divided by `num_tokens`; only `loss` has a gradient."""

    loss: Tensor
    """To minimise."""
    clip_fraction: Tensor
    """Share of tokens whose gradient the clip stops."""
    approx_kl: Tensor
    """Mean k3 of KL(old policy || policy): how far the policy has moved since it sampled."""
    ratio_mean: Tensor
    """Of the probability ratio, which is 1 at the first update."""
    ratio_var: Tensor
    """Mean square of its distance from 1."""


def ppo_clip_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, *, clip: float, num_tokens: int
) -> PolicyLoss:
    """Clipped surrogate of PPO (Schulman et al. 2017, eq. 7).

    logprobs, old_logprobs, advantages: float [B, T]; mask: bool [B, T]. Gradient flows through `logprobs` alone.
    clip: the probability ratio is held within [1 - clip, 1 + clip] where that lowers the gain.
    num_tokens: counted tokens of the whole optimizer step, so that micro-batches add up to the full batch.
    """
    old_logprobs, advantages = old_logprobs.detach(), widen(advantages.detach())
    # Uncounted positions get ratio 1 before the exponential, where a stray large value would turn the gradient to NaN.
    log_ratio = (widen(logprobs) - widen(old_logprobs)).masked_fill(~mask, 0.0)
    ratio = log_ratio.exp()
    free = ratio * advantages
    held = ratio.clamp(1 - clip, 1 + clip) * advantages
    return PolicyLoss(
        loss=-masked_sum(torch.minimum(free, held), mask) / num_tokens,
        clip_fraction=masked_sum(held < free, mask) / num_tokens,
        approx_kl=masked_sum(k3(old_logprobs, logprobs.detach()), mask) / num_tokens,
        ratio_mean=masked_sum(ratio.detach(), mask) / num_tokens,
        ratio_var=masked_sum((ratio.detach() - 1).square(), mask) / num_tokens,
    )


def kl_loss(
    logprobs: Tensor, old_logprobs: Tensor, reference_logprobs: Tensor, *, estimator: Literal["k2", "k3"]
) -> Tensor:
    """KL(policy, reference) of each token as a loss, at least float32 [B, T].

    k2: rho (log policy - log reference)^2 / 2 with the ratio rho = policy / old policy held fixed, whose mean gradient
    over tokens of the old policy is that of the KL at each state (arXiv 2506.09477). k3: as in GRPO (arXiv 2402.03300,
    eq. 4), whose mean gradient is that of KL(reference, policy). Neither sees what a token does to the KL of later
    ones; k1 in the reward does.
    logprobs, old_logprobs, reference_logprobs: float [B, T]. Gradient flows through `logprobs` alone.
    """
    reference_logprobs = reference_logprobs.detach()
    if estimator == "k3":
        return k3(logprobs, reference_logprobs)
    ratio = (widen(logprobs.detach()) - widen(old_logprobs.detach())).exp()
    return ratio * k2(logprobs, reference_logprobs)
