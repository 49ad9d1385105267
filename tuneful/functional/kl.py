"""KL(policy || reference): three estimators from sampled tokens, and the exact value from the logits.

For tokens drawn from the policy and l = log policy - log reference, all in nats per token:

    k1 = l              unbiased, may be negative; belongs in the reward
    k2 = l^2 / 2        biased, never negative; as a loss it has the gradient of this KL
    k3 = e^-l - 1 + l   unbiased, never negative; for reports. As a loss it has the gradient of KL(reference || policy)

k1 as a loss has no gradient on average. (Schulman 2020, "Approximating KL divergence"; gradients: arXiv 2506.09477.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from tuneful.functional.logprobs import vocabulary_logprobs
from tuneful.functional.precision import widen


def k1(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """log policy - log reference of the sampled tokens.

    logprobs, reference_logprobs: float [...]. Returns at least float32 [...].
    """
    return widen(logprobs) - widen(reference_logprobs)


def k2(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Half the squared log-ratio of the sampled tokens.

    logprobs, reference_logprobs: float [...]. Returns at least float32 [...].
    """
    return 0.5 * k1(logprobs, reference_logprobs).square()


def k3(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """e^-l - 1 + l of the sampled tokens, l the log-ratio; not clamped, since that would bias it.

    logprobs, reference_logprobs: float [...]. Returns at least float32 [...].
    """
    log_ratio = k1(logprobs, reference_logprobs)
    return torch.expm1(-log_ratio) + log_ratio


def exact_kl(logits: Tensor, reference_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """sum_v p_v log(p_v / q_v) with p = softmax(logits / temperature) and q the same of the reference.

    logits, reference_logits: float [..., V], -inf for a token that is ruled out; temperature: above 0. Returns float32
    [...], infinite where the policy chooses what the reference never does. Gradient flows to both.
    """
    logprobs = vocabulary_logprobs(logits, temperature=temperature)
    reference_logprobs = vocabulary_logprobs(reference_logits, temperature=temperature)
    probs = logprobs.exp()
    # A token the policy never chooses adds nothing, also where the reference rules it out too (-inf - -inf).
    return (probs * torch.where(probs > 0, logprobs - reference_logprobs, 0.0)).sum(-1)
