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
        probs, order = logits.softmax(-1).sort(-1, descending=True)
        before = probs.cumsum(-1) - probs
        outside = torch.zeros_like(order, dtype=torch.bool).scatter(-1, order, before >= top_p)
        return logits.masked_fill(outside, -torch.inf)

    return choose
