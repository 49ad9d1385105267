"""Nucleus sampling (Holtzman et al. 2020, arXiv 1904.09751): tokens are drawn from the likeliest alone."""

from __future__ import annotations

import torch
from torch import Tensor

from tuneful.errors import ConfigError
from tuneful.generation.sampler import Choose


def nucleus(top_p: float) -> Choose:
    """A `choose` for the sampler: of each row the fewest tokens that hold `top_p` of the probability.

    For answers, not for rollouts: what is drawn so is not drawn from the policy, which an update takes it for.
    Raises ConfigError unless top_p lies above 0 and is at most 1.
    """
    if not 0 < top_p <= 1:
        raise ConfigError(f"top_p must lie above 0 and be at most 1, which leaves all tokens, got {top_p}")

    def choose(logits: Tensor, hidden: Tensor, rows: Tensor) -> Tensor:
        if top_p == 1:  # a sum of float32 may reach 1 before the last token
            return logits
        return logits.masked_fill(~in_nucleus(logits, top_p), -torch.inf)

    return choose


def in_nucleus(logits: Tensor, top_p: float, *, min_tokens: int = 1) -> Tensor:
    """bool [R, V]: the fewest tokens that hold `top_p` of softmax(logits), and at least the `min_tokens` likeliest.

    logits: float [R, V]; top_p: above 0 and below 1. The token that crosses `top_p` is in.
    """
    probs, order = logits.softmax(-1).sort(-1, descending=True)
    inside = probs.cumsum(-1) - probs < top_p
    inside[:, :min_tokens] = True
    return torch.zeros_like(inside).scatter(-1, order, inside)
