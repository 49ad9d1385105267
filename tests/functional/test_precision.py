"""Products of numbers in half precision whose sums are float32, against float64."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from tests.allocations import counted
from tuneful.functional import precision
from tuneful.functional.precision import wide_linear


@pytest.mark.parametrize("at_once", [1, 50, 2**18])
@pytest.mark.parametrize("shape", [(6, 7), (2, 3, 7), (0, 7)])
def test_is_the_product_of_the_same_numbers_in_float64(
    shape: tuple[int, ...], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one row of the weights, of seven, and of all at a time; bfloat16's own product is a thousandth away."""
    monkeypatch.setattr(precision, "WIDENED_AT_ONCE", at_once)
    torch.manual_seed(0)
    x, weight, bias = torch.randn(shape).bfloat16(), torch.randn(11, 7).bfloat16(), torch.randn(11).bfloat16()
    exact = x.double() @ weight.double().T
    assert_close(wide_linear(x, weight), exact.float(), atol=1e-5, rtol=1e-6)
    assert_close(wide_linear(x, weight, bias), (exact + bias.double()).float(), atol=1e-5, rtol=1e-6)
    if exact.numel():
        assert ((x @ weight.T).double() - exact).abs().max() > 1e-3


def test_gradients_are_those_of_float64_rounded() -> None:
    torch.manual_seed(0)
    tensors = [torch.randn(shape).bfloat16().requires_grad_() for shape in ((2, 3, 7), (11, 7), (11,))]
    exact = [tensor.detach().double().requires_grad_() for tensor in tensors]
    of_output = torch.randn(2, 3, 11).bfloat16().float()  # which rounding to bfloat16 leaves alone
    ours = torch.autograd.grad(wide_linear(*tensors), tensors, of_output)
    theirs = torch.autograd.grad(torch.nn.functional.linear(*exact), exact, of_output.double())
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == torch.bfloat16
        assert_close(one, other.bfloat16(), atol=0.02, rtol=0.01)


def test_no_rows_read_no_weights() -> None:
    """A head's vocabulary is asked for with none; widened in parts, its weights take 1 MiB here."""
    weight = torch.randn(1_024, 256).bfloat16()
    with counted() as some:
        wide_linear(weight[:1], weight)
    with counted() as none:
        assert wide_linear(weight[:0], weight).shape == (0, 1_024)
    assert some.num_bytes >= 2**20
    assert none.num_bytes < 2**10
