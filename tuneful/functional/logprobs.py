"""What a row of logits says: the log-probability of a token, and the entropy of the choice.

The temperature is part of the policy's definition: sampling, reference and training divide the logits by the same one.
"""

from __future__ import annotations

import torch
from torch import Tensor


def vocabulary_logprobs(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """log softmax(logits / temperature), float32 [..., V].

    logits: float [..., V], -inf for a token that is ruled out; temperature: above 0. Gradient flows to `logits`.
    """
    scaled = logits.float()
    # Dividing by 1 would copy the largest tensor of the training step for nothing.
    return (scaled if temperature == 1.0 else scaled / temperature).log_softmax(-1)


def token_logprobs(logits: Tensor, ids: Tensor, *, temperature: float = 1.0) -> Tensor:
    """log pi(id) under softmax(logits / temperature), float32 [...].

    logits: float [..., V]; ids: int64 [...], each in [0, V); temperature: above 0. The logits at position t must be
    those that predict id t: shifting is the caller's business. Gradient flows to `logits`.
    """
    return vocabulary_logprobs(logits, temperature=temperature).gather(-1, ids.unsqueeze(-1)).squeeze(-1)


def token_entropy(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Entropy in nats of softmax(logits / temperature) over the whole vocabulary, float32 [...].

    logits: float [..., V], -inf for a token that is ruled out; temperature: above 0. Gradient flows to `logits`.
    """
    logprobs = vocabulary_logprobs(logits, temperature=temperature)
    probs = logprobs.exp()
    # A token of probability 0 adds nothing; as 0 * -inf it would make the sum, and its gradient, not a number.
    return -(probs * torch.where(probs > 0, logprobs, 0.0)).sum(-1)
