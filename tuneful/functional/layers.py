"""Parts of a transformer layer whose backward passes keep little: the same numbers as a plain composition of torch's
operations, fewer copies of the activations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension (Zhang and Sennrich 2019, arXiv 1910.07467).

    x: [..., d]; weight: [d]. Computed in float32 whatever x is. Keeps x and one number per row.
    """
    return _RMSNorm.apply(x, weight, eps) if torch.is_grad_enabled() else _normed(x, weight, _scale(x, eps))  # type: ignore[no-untyped-call]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021, arXiv 2104.09864): the halves of each head's h numbers are turned as pairs.

    x: [T, H, h]; cos, sin: [T, 1, h], of each pair's angle for its first and its second number, where the sine of the
    first is negated. Keeps only these two.
    """
    return _Rotate.apply(x, cos, sin) if torch.is_grad_enabled() else _turned(x, cos, sin)  # type: ignore[no-untyped-call]


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up (Shazeer 2020, arXiv 2002.05202), elementwise.

    gate, up: [..., f]. Keeps only the two inputs.
    """
    return _SwiGLU.apply(gate, up) if torch.is_grad_enabled() else silu(gate).mul_(up)  # type: ignore[no-untyped-call]


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        scale = _scale(x, eps)
        ctx.save_for_backward(x, weight, scale)
        return _normed(x, weight, scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, weight, scale = ctx.saved_tensors
        normed = x.float() * scale
        of_weight = (grad * normed).flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        inner = (grad * weight).float()
        along = torch.linalg.vecdot(inner, normed).unsqueeze(-1).div_(x.shape[-1])
        return inner.addcmul_(normed, along, value=-1).mul_(scale).to(x.dtype), of_weight, None


def _scale(x: Tensor, eps: float) -> Tensor:
    """1 / sqrt(mean(x^2) + eps), float32 [..., 1]."""
    length: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    return length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()


def _normed(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    normed: Tensor = (x.float() * scale).to(x.dtype)
    return normed.mul_(weight)


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turned(grad, cos, -sin), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    one, two = x.chunk(2, dim=-1)
    return (x * cos).addcmul_(torch.cat([two, one], dim=-1), sin)


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        of_gate: Tensor = torch.ops.aten.silu_backward(grad * up, gate)
        return of_gate, silu(gate).mul_(grad)
