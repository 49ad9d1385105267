import math
from dataclasses import dataclass, fields, replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, tensor
from torch.nn.functional import pad
from torch.testing import assert_close

from tuneful.functional.policy_losses import PolicyLoss, kl_loss, ppo_clip_loss


@pytest.mark.parametrize(
    ("advantage", "ratio", "loss", "gradient", "clipped"),
    [
        (1.0, 1.5, -1.2, 0.0, 1.0),  # good and already likelier than allowed: held
        (1.0, 0.5, -0.5, -0.5, 0.0),  # d loss / d logprob = -A rho
        (-1.0, 0.5, 0.8, 0.0, 1.0),  # bad and already rarer than allowed: held
        (-1.0, 1.5, 1.5, 1.5, 0.0),
        (1.0, 1.0, -1.0, -1.0, 0.0),
        (0.0, 3.0, 0.0, 0.0, 0.0),
    ],
)
def test_each_side_of_the_clip(advantage: float, ratio: float, loss: float, gradient: float, clipped: float) -> None:
    logprobs = tensor([[math.log(ratio) - 2.0]], requires_grad=True)
    outcome = ppo_clip_loss(logprobs, tensor([[-2.0]]), tensor([[advantage]]), tensor([[True]]), clip=0.2, num_tokens=1)
    outcome.loss.backward()
    assert_close(outcome.loss.item(), loss)
    assert_close(logprobs.grad, tensor([[gradient]]))
    assert outcome.clip_fraction.item() == clipped
    # k3 of KL(old || new) on a token of the old policy: rho - 1 - ln rho
    assert_close(outcome.approx_kl.item(), ratio - 1 - math.log(ratio), atol=1e-6, rtol=1e-6)
    assert_close(outcome.ratio_mean.item(), ratio)
    assert_close(outcome.ratio_var.item(), (ratio - 1) ** 2, atol=1e-6, rtol=1e-6)


@dataclass(frozen=True)
class Batch:
    logprobs: Tensor
    old_logprobs: Tensor
    advantages: Tensor
    mask: Tensor

    def rows(self, rows: slice) -> "Batch":
        return Batch(*(getattr(self, field.name)[rows] for field in fields(self)))

    def loss(self, num_tokens: int) -> PolicyLoss:
        return ppo_clip_loss(
            self.logprobs, self.old_logprobs, self.advantages, self.mask, clip=0.2, num_tokens=num_tokens
        )


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """Ragged rows, some of them empty, with ratios on both sides of the clip."""
    lengths = tensor(draw(st.lists(st.integers(0, 6), min_size=2, max_size=6)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    old, move, advantages = torch.randn(3, len(lengths), 6, generator=generator)
    logprobs = (-old.abs() + 0.3 * move).requires_grad_()
    return Batch(logprobs, -old.abs(), advantages, torch.arange(6) < lengths[:, None])


@given(batches(), st.integers(1, 9), st.sampled_from([0.0, 100.0, math.inf, math.nan]))
def test_padding_never_moves_the_loss(batch: Batch, extra: int, stray: float) -> None:
    longer = Batch(
        pad(batch.logprobs.detach(), (0, extra), value=-stray).requires_grad_(),
        pad(batch.old_logprobs, (0, extra), value=-1.0),
        pad(batch.advantages, (0, extra), value=stray),
        pad(batch.mask, (0, extra), value=False),
    )
    expected, found = batch.loss(7), longer.loss(7)
    assert_close(
        (found.loss, found.clip_fraction, found.approx_kl), (expected.loss, expected.clip_fraction, expected.approx_kl)
    )
    expected.loss.backward()
    found.loss.backward()
    assert batch.logprobs.grad is not None
    assert_close(longer.logprobs.grad, pad(batch.logprobs.grad, (0, extra)))


@given(batches())
def test_two_half_batches_give_the_gradient_of_the_whole(batch: Batch) -> None:
    num_tokens = max(int(batch.mask.sum()), 1)
    whole = batch.loss(num_tokens).loss
    (expected,) = torch.autograd.grad(whole, batch.logprobs)
    half = len(batch.mask) // 2
    first, second = batch.rows(slice(half)).loss(num_tokens).loss, batch.rows(slice(half, None)).loss(num_tokens).loss
    (found,) = torch.autograd.grad(first + second, batch.logprobs)
    assert_close(first + second, whole)
    assert_close(found, expected)


@given(batches())
def test_the_first_step_has_ratio_1_no_clipping_and_the_gradient_of_a2c(batch: Batch) -> None:
    fresh = replace(batch, logprobs=batch.old_logprobs.clone().requires_grad_())
    num_tokens = max(int(batch.mask.sum()), 1)
    outcome = fresh.loss(num_tokens)
    outcome.loss.backward()
    assert outcome.clip_fraction == 0
    assert outcome.approx_kl == 0
    assert_close(fresh.logprobs.grad, -(batch.advantages * batch.mask) / num_tokens)  # of -A log pi


def test_gradient_flows_through_the_policy_alone() -> None:
    tensors = [torch.full((1, 2), value, requires_grad=True) for value in (-1.0, -1.1, 0.5)]
    outcome = ppo_clip_loss(*tensors, torch.ones(1, 2, dtype=torch.bool), clip=0.2, num_tokens=2)
    outcome.loss.backward()
    assert [t.grad is not None for t in tensors] == [True, False, False]
    assert not outcome.approx_kl.requires_grad and not outcome.clip_fraction.requires_grad


def test_half_precision_is_worked_on_in_float32() -> None:
    logprobs, old, advantages = (tensor([[value]]).bfloat16() for value in (-8.0, -8.0625, 1.0))
    loss = ppo_clip_loss(logprobs, old, advantages, tensor([[True]]), clip=0.2, num_tokens=1).loss
    assert loss.dtype == torch.float32
    assert_close(loss.item(), -math.exp(0.0625))


@pytest.mark.parametrize(
    ("estimator", "drawn", "expected"),
    [
        # p = (.9, .1), q = (.5, .5): KL(p, q) has gradient p_a (log p_a / q_a - KL) in the logits, KL(q, p) has p - q.
        pytest.param("k2", (0.9, 0.1), (0.197750, -0.197750), id="k2"),
        pytest.param("k2", (0.3, 0.7), (0.197750, -0.197750), id="k2, tokens of an older policy"),
        pytest.param("k3", (0.9, 0.1), (0.4, -0.4), id="k3"),
    ],
)
def test_the_mean_gradient_of_a_kl_loss(
    estimator: Any, drawn: tuple[float, float], expected: tuple[float, float]
) -> None:
    logits = tensor([0.9, 0.1]).log().requires_grad_()
    old, reference = tensor(drawn).log(), tensor([0.5, 0.5]).log()
    of_tokens = kl_loss(logits.log_softmax(-1), old, reference, estimator=estimator)
    (tensor(drawn) * of_tokens).sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert_close(logits.grad, tensor(expected), atol=1e-5, rtol=0)


def test_a_kl_loss_is_0_where_nothing_has_moved() -> None:
    same = tensor([[-1.0, -3.0]])
    for estimator in ("k2", "k3"):
        assert not kl_loss(same, same, same, estimator=estimator).any()
