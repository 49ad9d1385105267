"""The precision that sums, differences and exponentials are taken in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

WIDENED_AT_ONCE = 2**18
"""Weights that are made float32 together: 1 MiB, which a core still has at hand when it multiplies by them."""


def widen(values: Tensor) -> Tensor:
    """`values` in float32 when they are bool, integer, float16 or bfloat16; float32 and float64 stay as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def wide_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weight^T + bias of numbers in half precision, multiplied, summed and returned in float32 [..., n, o].

    x: [..., n, i], weight: [o, i], bias: [o], all of one dtype. The weights are never float32 all at once. Gradient
    flows to all three, made as that of a linear layer in half precision is.
    """
    product: Tensor = _WideLinear.apply(x.flatten(0, -2), weight, bias)  # type: ignore[no-untyped-call]
    return product.view(*x.shape[:-1], len(weight))


class _WideLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, weight)
        product = _on_gpu(rows, weight) if rows.is_cuda else _in_parts(rows, weight)
        return product if bias is None else product.add_(bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        of_rows, of_weight, of_bias = ctx.needs_input_grad
        grad = grad.to(weight.dtype)
        return (
            grad @ weight if of_rows else None,
            grad.T @ rows if of_weight else None,
            grad.sum(0) if of_bias else None,
        )


def _on_gpu(rows: Tensor, weight: Tensor) -> Tensor:
    """By the units that read half precision and sum in float32."""
    return torch.mm(rows, weight.T, out_dtype=torch.float32)


def _in_parts(rows: Tensor, weight: Tensor) -> Tensor:
    """By products in float32, of some rows of `weight` at a time."""
    wide, product = rows.float(), rows.new_empty(len(rows), len(weight), dtype=torch.float32)
    if len(rows) == 0:  # as when a head is asked for its vocabulary alone
        return product
    size = max(WIDENED_AT_ONCE // weight.shape[1], 1)
    for part, some in zip(torch.split(product, size, dim=1), torch.split(weight, size), strict=True):
        torch.mm(wide, some.float().T, out=part)
    return product
