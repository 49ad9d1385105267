"""The layer parts against plain compositions of torch's operations, values and gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import silu
from torch.testing import assert_close

from tuneful.functional.layers import rms_norm, rotate, swiglu


def drawn(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator).requires_grad_()


def same(found: Callable[..., Tensor], expected: Callable[..., Tensor], *inputs: Tensor) -> None:
    one, other = found(*inputs), expected(*inputs)
    assert_close(one, other)
    direction = torch.randn(one.shape, generator=torch.Generator().manual_seed(1))
    for mine, theirs in zip(
        torch.autograd.grad(one, inputs, direction), torch.autograd.grad(other, inputs, direction), strict=True
    ):
        assert_close(mine, theirs)


def test_rms_norm() -> None:
    def plain(x: Tensor, weight: Tensor) -> Tensor:
        return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * weight

    same(lambda x, weight: rms_norm(x, weight, 1e-6), plain, drawn(5, 3, 8), drawn(8))


def test_rms_norm_by_hand() -> None:
    """[3, 4] has mean square 12.5, so it becomes [3, 4] / 3.5355."""
    assert_close(
        rms_norm(torch.tensor([[3.0, 4.0]]), torch.tensor([1.0, 2.0]), 0.0), torch.tensor([[0.848528, 2.262742]])
    )


def test_swiglu() -> None:
    same(swiglu, lambda gate, up: silu(gate) * up, drawn(7, 6), drawn(6, 7).T)


def test_rotate_turns_each_pair_as_a_complex_number() -> None:
    angles = drawn(4, 3).detach()

    def plain(x: Tensor) -> Tensor:
        turned = torch.complex(x[..., :3], x[..., 3:]) * torch.polar(torch.ones_like(angles), angles)[:, None]
        return torch.cat([turned.real, turned.imag], dim=-1)

    cos = torch.cat([angles.cos(), angles.cos()], dim=-1)[:, None]
    sin = torch.cat([-angles.sin(), angles.sin()], dim=-1)[:, None]
    same(lambda x: rotate(x, cos, sin), plain, drawn(4, 2, 6))
