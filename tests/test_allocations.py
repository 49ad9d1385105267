"""The count of live tensors, against cases that are counted by hand."""

from __future__ import annotations

import torch

from tests.allocations import counted


def test_views_operations_in_place_and_what_was_freed_by_hand() -> None:
    """1000 floats are 4000 bytes. x and y and then, one after the other, 8000 bytes of doubles and 4000 of a copy."""
    x = torch.zeros(1_000)
    with counted([x, x[:10]]) as peak:
        y = x + 1
        y.mul_(2)
        view = y.view(10, 100)[:5]
        wide = x.double()
        del wide
        copy = x.clone()
        del y, view, copy
    assert peak.num_bytes == 4_000 + 4_000 + 8_000


def test_what_a_backward_pass_keeps_and_makes_by_hand() -> None:
    """a, b = exp(a) and its cosine, and that times the gradient: four of 8192 bytes, and two sums of one float."""
    a = torch.randn(64, 32, requires_grad=True)
    with counted([a]) as peak:
        b = a.exp()
        c = b.sin()
        del b
        total = c.sum()
        del c
        total.backward()  # type: ignore[no-untyped-call]
    assert peak.num_bytes == 4 * 8_192 + 2 * 4


def test_memory_that_only_a_kernel_takes() -> None:
    """Causal attention of 4 x 2 heads over 32 places of 16 floats: output, log-sums, and what the kernel works in."""
    q = torch.randn(4, 2, 32, 16)
    with counted([q]) as peak:
        out = torch.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True)
    assert peak.num_bytes > q.nbytes + out.nbytes + 4 * 2 * 32 * 4
