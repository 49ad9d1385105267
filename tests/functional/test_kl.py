import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, tensor
from torch.testing import assert_close

from tuneful.functional.kl import exact_kl, k1, k2, k3

Estimator = Callable[[Tensor, Tensor], Tensor]


def moments(estimator: Estimator, p: Tensor, q: Tensor) -> tuple[float, float]:
    """Mean and standard deviation over tokens drawn from p, by enumeration."""
    values = estimator(p.log(), q.log())
    mean = (p * values).sum()
    return mean.item(), (p * (values - mean).square()).sum().sqrt().item()


def test_estimators_far_from_the_reference() -> None:
    # .9 ln 1.8 + .1 ln .2 = .529008 - .160944 = .368064;  (.9 ln^2 1.8 + .1 ln^2 .2) / 2 = .284986
    p, q = tensor([0.9, 0.1]), tensor([0.5, 0.5])
    assert_close(moments(k1, p, q), (0.368064, 0.6592), atol=5e-5, rtol=0)
    assert_close(moments(k2, p, q)[0], 0.284986, atol=1e-6, rtol=0)
    assert_close(moments(k3, p, q), (0.368064, 0.6742), atol=5e-5, rtol=0)
    assert_close(exact_kl(p.log(), q.log()).item(), 0.368064, atol=1e-6, rtol=0)


def test_estimators_near_the_reference() -> None:
    # Here k3 is forty times quieter than k1.
    p, q = tensor([0.6, 0.4]), tensor([0.5, 0.5])
    assert_close(moments(k1, p, q), (0.020136, 0.1986), atol=5e-5, rtol=0)
    assert_close(moments(k3, p, q), (0.020136, 0.0055), atol=5e-5, rtol=0)
    assert_close(exact_kl(p.log(), q.log()).item(), 0.020136, atol=1e-6, rtol=0)


def test_exact_kl_at_the_optimum_of_the_two_armed_bandit() -> None:
    # Rewards (1, 0), uniform reference, beta 1: pi = (e, 1) / (e + 1); KL = .731059 - ln((e + 1) / 2) = .110944
    assert_close(exact_kl(tensor([1.0, 0.0]), tensor([0.0, 0.0])).item(), 0.110944, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        (k1, [0.0, 0.0]),
        # d KL / dz_0 = p_0 (ln(p_0 / q_0) - KL) = .9 (.587787 - .368064) = .197750: k2 has the true gradient
        (k2, [0.197750, -0.197750]),
        (k3, [0.4, -0.4]),  # forward KL(q || p): p - q
    ],
)
def test_gradient_of_each_estimator_as_a_loss(estimator: Estimator, expected: list[float]) -> None:
    logits = tensor([math.log(9.0), 0.0], requires_grad=True)  # p = (.9, .1)
    logprobs = logits.log_softmax(-1)
    losses = estimator(logprobs, tensor([0.5, 0.5]).log())
    (logprobs.exp().detach() * losses).sum().backward()  # the mean over sampled tokens, by enumeration
    assert_close(logits.grad, tensor(expected), atol=1e-6, rtol=0)


def test_gradient_of_the_exact_kl() -> None:
    logits = tensor([math.log(9.0), 0.0], requires_grad=True)
    exact_kl(logits, torch.zeros(2)).backward()
    assert_close(logits.grad, tensor([0.197750, -0.197750]), atol=1e-6, rtol=0)


def test_temperature_belongs_to_both_policies() -> None:
    # Logits (ln 3, 0) at temperature 1/2 are (.9, .1).
    assert_close(exact_kl(tensor([math.log(3.0), 0.0]), torch.zeros(2), temperature=0.5).item(), 0.368064)


@given(st.floats(-80, 80), st.floats(-80, 80))
def test_k2_and_k3_are_never_negative(logprob: float, reference: float) -> None:
    logprobs, references = tensor([logprob]), tensor([reference])
    assert (k2(logprobs, references) >= 0).all()
    assert (k3(logprobs, references) >= 0).all()


def test_k3_is_never_negative_where_the_policies_nearly_agree() -> None:
    log_ratio = torch.logspace(-12, 0, 20_000)
    for sign in (1, -1):
        assert (k3(sign * log_ratio, torch.zeros(1)) >= 0).all()


def test_a_policy_is_at_no_distance_from_itself() -> None:
    logits = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    logprobs = logits.log_softmax(-1)
    for estimator in (k1, k2, k3):
        assert_close(estimator(logprobs, logprobs), torch.zeros(3, 5), atol=0, rtol=0)
    assert_close(exact_kl(logits, logits), torch.zeros(3), atol=0, rtol=0)


def test_ruled_out_tokens() -> None:
    narrow = tensor([0.0, 0.0, -math.inf], requires_grad=True)
    wide = tensor([0.0, 0.0, 0.0])
    divergence = exact_kl(narrow, wide)
    assert_close(divergence.item(), math.log(3 / 2))  # (1/2, 1/2, 0) against thirds
    divergence.backward()
    assert narrow.grad is not None and narrow.grad.isfinite().all()
    assert_close(exact_kl(narrow, narrow).item(), 0.0)
    assert exact_kl(wide, narrow).item() == math.inf  # chosen by the policy, impossible for the reference


def test_half_precision_is_subtracted_in_float32() -> None:
    policy, reference = tensor([-100.0]).bfloat16(), tensor([-0.25]).bfloat16()
    assert_close(k1(policy, reference), tensor([-99.75]))  # bfloat16 would round it to -100
    logits, references = torch.randn(2, 4, 9, generator=torch.Generator().manual_seed(0)).bfloat16()
    p, q = logits.double().log_softmax(-1), references.double().log_softmax(-1)
    assert_close(exact_kl(logits, references).double(), (p.exp() * (p - q)).sum(-1), atol=1e-6, rtol=0)
