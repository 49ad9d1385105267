import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import tensor
from torch.nn.functional import pad
from torch.testing import assert_close

from tuneful.functional.value_losses import clipped_value_loss, explained_variance

COUNTS = tensor([[True]])


@pytest.mark.parametrize(
    ("value", "old", "target", "clip", "loss", "gradient", "clipped"),
    [
        (1.0, 0.0, 3.0, None, 2.0, -2.0, 0.0),  # half of (1 - 3)^2
        (0.1, 0.0, 3.0, 0.2, 4.205, -2.9, 0.0),  # within the clip: half of 2.9^2
        (1.0, 0.0, 3.0, 0.2, 3.92, 0.0, 1.0),  # held at .2, error 2.8 is the larger one: half of 2.8^2
        (1.0, 0.0, -1.0, 0.2, 2.0, 2.0, 0.0),  # held at .2, error 1.2 is the smaller one: half of 2^2
        (-1.0, 0.0, -3.0, 0.2, 3.92, 0.0, 1.0),
    ],
)
def test_value_loss_by_hand(
    value: float, old: float, target: float, clip: float | None, loss: float, gradient: float, clipped: float
) -> None:
    values = tensor([[value]], requires_grad=True)
    outcome = clipped_value_loss(values, tensor([[old]]), tensor([[target]]), COUNTS, clip=clip, num_tokens=1)
    outcome.loss.backward()
    assert_close(outcome.loss.item(), loss)
    assert_close(values.grad, tensor([[gradient]]))
    assert outcome.clip_fraction.item() == clipped


@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(1, 9), st.sampled_from([None, 0.2]))
def test_neither_padding_nor_cutting_the_batch_moves_loss_or_gradient(
    seed: int, rows: int, extra: int, clip: float | None
) -> None:
    generator = torch.Generator().manual_seed(seed)
    values, old, returns = torch.randn(3, rows, 4, generator=generator)
    mask = torch.rand(rows, 4, generator=generator) < 0.7
    values.requires_grad_()
    whole = clipped_value_loss(values, old, returns, mask, clip=clip, num_tokens=5).loss
    (expected,) = torch.autograd.grad(whole, values)

    longer = pad(values.detach(), (0, extra), value=math.nan).requires_grad_()
    padded = clipped_value_loss(
        longer,
        pad(old, (0, extra)),
        pad(returns, (0, extra), value=math.inf),
        pad(mask, (0, extra)),
        clip=clip,
        num_tokens=5,
    ).loss
    assert_close(padded, whole)
    assert_close(torch.autograd.grad(padded, longer)[0], pad(expected, (0, extra)))

    half = rows // 2
    parts = [
        clipped_value_loss(values[cut], old[cut], returns[cut], mask[cut], clip=clip, num_tokens=5).loss
        for cut in (slice(half), slice(half, None))
    ]
    assert_close(parts[0] + parts[1], whole)
    assert_close(torch.autograd.grad(parts[0] + parts[1], values)[0], expected)


def test_gradient_flows_through_the_values_alone() -> None:
    tensors = [torch.full((1, 2), value, requires_grad=True) for value in (1.0, 1.1, 0.5)]
    outcome = clipped_value_loss(*tensors, torch.ones(1, 2, dtype=torch.bool), clip=0.2, num_tokens=2)
    outcome.loss.backward()
    assert [t.grad is not None for t in tensors] == [True, False, False]
    assert not outcome.clip_fraction.requires_grad


def test_half_precision_is_worked_on_in_float32() -> None:
    values, old, returns = (tensor([[value]]).bfloat16() for value in (256.0, 256.0, 1.0))
    loss = clipped_value_loss(values, old, returns, COUNTS, clip=0.2, num_tokens=1).loss
    assert_close(loss, tensor(255.0**2 / 2))


def test_explained_variance_by_hand() -> None:
    # returns (1, 2, 3): variance 2/3. Residuals (0, 0, 1): variance 2/9. 1 - 1/3 = 2/3. The fourth does not count.
    mask = tensor([[True, True, True, False]])
    explained = explained_variance(tensor([[1.0, 2.0, 2.0, 5.0]]), tensor([[1.0, 2.0, 3.0, math.nan]]), mask)
    assert_close(explained.item(), 2 / 3)


def test_explained_variance_of_a_perfect_a_constant_and_an_impossible_fit() -> None:
    returns, mask = tensor([[1.0, 2.0, 4.0]]), torch.ones(1, 3, dtype=torch.bool)
    assert explained_variance(returns, returns, mask).item() == 1
    assert_close(explained_variance(torch.full((1, 3), 9.0), returns, mask).item(), 0.0, atol=1e-6, rtol=0)
    assert explained_variance(returns, torch.full((1, 3), 0.1), mask).isnan()
