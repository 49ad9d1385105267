"""Targets and losses of action values against hand-worked numbers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import tensor
from torch.testing import assert_close

from tuneful.functional.q_losses import expectile_loss, n_step_targets, next_values, soft_values

REWARDS, VALUES = tensor([[1.0, 2.0, 4.0]]), tensor([[10.0, 20.0, 40.0]])
ALL = torch.ones(1, 3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (1, [1 + 0.5 * 20, 2 + 0.5 * 40, 4.0]),
        (2, [1 + 0.5 * 2 + 0.25 * 40, 2 + 0.5 * 4, 4.0]),
        (3, [1 + 0.5 * 2 + 0.25 * 4, 2 + 0.5 * 4, 4.0]),
        (None, [1 + 0.5 * 2 + 0.25 * 4, 2 + 0.5 * 4, 4.0]),
    ],
)
def test_targets_by_hand(steps: int | None, expected: list[float]) -> None:
    assert_close(n_step_targets(REWARDS, VALUES, ALL, gamma=0.5, num_steps=steps), tensor([expected]))


@given(st.integers(0, 2**16), st.integers(1, 4))
def test_uncounted_tokens_are_stepped_over(seed: int, steps: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rewards, values = torch.randn(2, 1, 4, generator=generator)
    spread, mask = [0, 2, 3, 5], torch.zeros(1, 7, dtype=torch.bool)
    mask[0, spread] = True
    wide = torch.full((2, 1, 7), math.nan)
    wide[0, 0, spread], wide[1, 0, spread] = rewards[0], values[0]
    whole = torch.ones(1, 4, dtype=torch.bool)
    for found, expected in (
        (
            n_step_targets(wide[0], wide[1], mask, gamma=0.9, num_steps=steps),
            n_step_targets(rewards, values, whole, gamma=0.9, num_steps=steps),
        ),
        (next_values(wide[1], mask), next_values(values, whole)),
    ):
        assert_close(found[0, spread], expected[0])
        assert not found[~mask].any()


def test_next_values_by_hand() -> None:
    values = VALUES.clone().requires_grad_()
    following = next_values(values, ALL)
    assert_close(following, tensor([[20.0, 40.0, 0.0]]))
    following.sum().backward()  # type: ignore[no-untyped-call]
    assert values.grad is not None
    assert_close(values.grad, tensor([[0.0, 1.0, 1.0]]))


@pytest.mark.parametrize(("q", "tau", "expected"), [(0.5, 0.7, 0.7), (0.1, 0.9, 0.5), (0.3, 0.5, 0.3)])
def test_the_expectile_of_a_coin(q: float, tau: float, expected: float) -> None:
    """Of 1 with q, else 0: tau q / (tau q + (1 - tau) (1 - q)), found where the mean loss has no slope."""
    assert tau * q / (tau * q + (1 - tau) * (1 - q)) == pytest.approx(expected)
    value = tensor(expected, requires_grad=True)
    loss = q * expectile_loss(1 - value, tau) + (1 - q) * expectile_loss(0 - value, tau)
    (slope,) = torch.autograd.grad(loss, value)
    assert float(slope) == pytest.approx(0, abs=1e-6)


def test_a_soft_value_by_hand() -> None:
    """Two actions of a half each, Q = (1, 0): beta log((e^(1 / beta) + 1) / 2), which is .620115 at beta 1."""
    q, reference = tensor([1.0, 0.0]), tensor([-3.0, -3.0])  # of many, these two are looked at
    assert float(soft_values(q, reference, beta=1.0)) == pytest.approx(0.620115, abs=1e-6)
    assert float(soft_values(q, reference, beta=0.01)) == pytest.approx(1 - 0.01 * math.log(2), abs=1e-6)
    assert float(soft_values(q, reference, beta=1e4)) == pytest.approx(0.5, abs=1e-3)
