"""The step of a trust region: as far as a quadratic model of the KL allows, along the natural gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tuneful.functional.precision import widen


def conjugate_gradient(
    product: Callable[[Tensor], Tensor], target: Tensor, *, iterations: int, tolerance: float = 1e-10
) -> tuple[Tensor, float]:
    """x with product(x) = target, and what is left of it, |target - product(x)| / |target| (Hestenes & Stiefel 1952).

    product: a symmetric, positive definite map of float [n], such as v -> (F + damping) v; target: float [n]. Ends
    after `iterations`, or where the squared remainder is below `tolerance` of that of the start. 0 for a target of 0.
    """
    x = torch.zeros_like(target)
    remainder = target.clone()
    direction = remainder.clone()
    square = start = float(remainder.dot(remainder))
    for _ in range(iterations):
        if square <= tolerance * start:
            break
        mapped = product(direction)
        length = square / float(direction.dot(mapped))
        x += length * direction
        remainder -= length * mapped
        square, before = float(remainder.dot(remainder)), square
        direction = remainder + (square / before) * direction
    return x, (square / start) ** 0.5 if start > 0 else 0.0


def longest_step(direction: Tensor, mapped: Tensor, max_kl: float) -> float:
    """The length along `direction` at which the quadratic model of the KL is `max_kl` (Schulman et al. 2015, app. C).

    sqrt(2 max_kl / x^T F x). direction, mapped: float [n], x and F x, F the Fisher matrix of a mean over tokens; max_kl
    in nats per token. 0 where the model sees no change.
    """
    curvature = float(direction.dot(mapped))
    return float((2 * max_kl / curvature) ** 0.5) if curvature > 0 else 0.0


def fisher_kl(logits: Tensor) -> Tensor:
    """KL(now || policy) of each row at the policy that is now, at least float32 [...]: 0 with a gradient of 0, whose
    gradient is the Fisher matrix.

    logits: float [..., V], of softmax.
    """
    logprobs = widen(logits).log_softmax(-1)
    now = logprobs.detach()
    return (now.exp() * (now - logprobs)).sum(-1)
