"""Sums, means and whitening over the tokens that count.

What stands where `mask` is False never matters, not even when it is infinite or not a number.
"""

from __future__ import annotations

from torch import Tensor

from tuneful.functional.precision import widen


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum of `values` where `mask` is True, a scalar of at least float32.

    values: number or bool [...]; mask: bool, of the same shape.
    """
    return widen(values).masked_fill(~mask, 0.0).sum()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where `mask` is True, a scalar; NaN when no token counts.

    values: number or bool [...]; mask: bool, of the same shape.
    """
    return masked_sum(values, mask) / mask.sum()


def masked_variance(values: Tensor, mask: Tensor) -> Tensor:
    """Population variance of `values` where `mask` is True, a scalar; NaN when no token counts.

    values: float [...]; mask: bool, of the same shape.
    """
    return masked_mean((widen(values) - _mean(values, mask)).square(), mask)


def whiten(values: Tensor, mask: Tensor, *, shift_mean: bool = True) -> Tensor:
    """`values` scaled to standard deviation 1, and to mean 0 unless `shift_mean` is False, which keeps the mean.

    (v - mean) / sqrt(var + 1e-8) with the population variance of the tokens that count (Ziegler et al. 2019, code).
    Statistics are of the tensors given, so give the whole batch: whitening each micro-batch alone changes the result.
    values: float [...]; mask: bool, of the same shape. Returns at least float32, of the same shape, 0 where `mask` is
    False.
    """
    mean = _mean(values, mask)
    scaled = (widen(values) - mean) * (masked_variance(values, mask) + 1e-8).rsqrt()
    return (scaled if shift_mean else scaled + mean).masked_fill(~mask, 0.0)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean in two passes: the second removes the rounding of the first.

    Without it equal values would keep a common remainder, and whitening would blow that up to a drift.
    """
    mean = masked_mean(values, mask)
    return mean + masked_mean(widen(values) - mean, mask)
