"""Losses that fit a value function to returns, and how well it fits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tuneful.functional.masking import masked_sum, masked_variance
from tuneful.functional.precision import widen


@dataclass(frozen=True, slots=True)
class ValueLoss:
    """A value loss and what to watch beside it, each a scalar divided by `num_tokens`; only `loss` has a gradient."""

    loss: Tensor
    """To minimise."""
    clip_fraction: Tensor
    """Share of tokens whose gradient the clip stops."""


def clipped_value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, *, clip: float | None, num_tokens: int
) -> ValueLoss:
    """Half the squared error, or that of the value held near its old one where this is larger.

    0.5 max((V - R)^2, (V_old + clamp(V - V_old, -clip, clip) - R)^2), after the code of Ziegler et al. 2019.
    values, old_values, returns: float [B, T]; mask: bool [B, T]. Gradient flows through `values` alone.
    clip: in units of the returns; None does not clip. num_tokens: counted tokens of the whole optimizer step.
    """
    values, old_values, returns = (
        widen(tensor).masked_fill(~mask, 0.0) for tensor in (values, old_values.detach(), returns.detach())
    )
    free = held = (values - returns).square()
    if clip is not None:
        held = (old_values + (values - old_values).clamp(-clip, clip) - returns).square()
    return ValueLoss(
        loss=0.5 * masked_sum(torch.maximum(free, held), mask) / num_tokens,
        clip_fraction=masked_sum(held > free, mask) / num_tokens,
    )


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """1 - Var(returns - values) / Var(returns), a scalar: 1 is a perfect fit, 0 no better than a constant.

    values, returns: float [B, T]; mask: bool [B, T]. NaN when the returns do not vary, for there is nothing to explain.
    """
    spread = masked_variance(returns, mask)
    unexplained = masked_variance(widen(returns) - widen(values), mask) / spread
    return torch.where(spread > 0, 1 - unexplained, torch.nan).detach()
