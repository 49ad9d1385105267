"""The trust region's parts against hand-worked numbers and a dense solve."""

import math

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from tuneful.functional.trust_region import conjugate_gradient, fisher_kl, longest_step

THIRDS = torch.zeros(3, dtype=torch.float64)
G = tensor([1.0, 0.0, -1.0], dtype=torch.float64)


def fisher_of_three(v: torch.Tensor) -> torch.Tensor:
    """Of a softmax at three equal arms: diag p - p p^T = I/3 - 1/9, which maps (1, 0, -1) to a third of it."""
    return v / 3 - v.sum() / 9


def test_three_equal_arms_by_hand() -> None:
    # F g = g / 3, so x = 3 g, x F x = 6 and the length sqrt(.02 / 6) = .057735.
    assert_close(fisher_of_three(G), G / 3)
    x, residual = conjugate_gradient(fisher_of_three, G, iterations=15)
    assert_close(x, 3 * G)
    assert residual == pytest.approx(0, abs=1e-6)
    length = longest_step(x, fisher_of_three(x), 0.01)
    assert length == pytest.approx(0.057735, abs=1e-6)
    moved = THIRDS + length * x
    assert_close(moved, tensor([0.173205, 0.0, -0.173205], dtype=torch.float64), atol=1e-6, rtol=0)
    old, new = THIRDS.log_softmax(-1), moved.log_softmax(-1)
    assert float((old.exp() * (old - new)).sum()) == pytest.approx(0.009975, abs=1e-6)


def test_damping_by_hand() -> None:
    # (F + .1) x = g on (1, 0, -1): (1/3 + 1/10) x = 1, x = 30/13.
    x, _ = conjugate_gradient(lambda v: fisher_of_three(v) + 0.1 * v, G, iterations=15)
    assert_close(x, tensor([2.307692, 0.0, -2.307692], dtype=torch.float64), atol=1e-6, rtol=0)


def test_the_fisher_kl_curves_as_a_softmax_does() -> None:
    logits = tensor([0.3, -1.0, 0.7, 0.0], dtype=torch.float64)
    assert float(fisher_kl(logits)) == pytest.approx(0, abs=1e-12)
    assert_close(torch.func.grad(fisher_kl)(logits), torch.zeros(4, dtype=torch.float64), atol=1e-12, rtol=0)
    p = logits.softmax(-1)
    assert_close(torch.func.hessian(fisher_kl)(logits), torch.diag(p) - torch.outer(p, p))


@pytest.mark.parametrize("size", [1, 7, 20])
def test_conjugate_gradient_solves(size: int) -> None:
    torch.manual_seed(size)
    root = torch.randn(size, size, dtype=torch.float64)
    matrix, target = root @ root.T + torch.eye(size), torch.randn(size, dtype=torch.float64)
    x, residual = conjugate_gradient(lambda v: matrix @ v, target, iterations=3 * size, tolerance=1e-24)
    assert_close(x, torch.linalg.solve(matrix, target), atol=1e-7, rtol=1e-7)
    assert residual == pytest.approx(float((target - matrix @ x).norm() / target.norm()), abs=1e-9)


def test_few_iterations_leave_a_remainder_that_is_told() -> None:
    torch.manual_seed(0)
    root = torch.randn(9, 9, dtype=torch.float64)
    matrix, target = root @ root.T + 0.1 * torch.eye(9), torch.randn(9, dtype=torch.float64)
    x, residual = conjugate_gradient(lambda v: matrix @ v, target, iterations=2)
    assert residual == pytest.approx(float((target - matrix @ x).norm() / target.norm()))
    assert residual > 0.01


def test_nothing_to_follow() -> None:
    x, residual = conjugate_gradient(lambda v: v, torch.zeros(3), iterations=5)
    assert not x.any()
    assert residual == 0
    assert longest_step(x, x, 0.01) == 0
    assert math.isfinite(longest_step(torch.ones(2), torch.ones(2), 0.01))
