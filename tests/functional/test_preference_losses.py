import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, tensor
from torch.testing import assert_close

from tuneful.functional.preference_losses import bradley_terry_loss, dpo_loss


def pair(chosen: float, rejected: float) -> tuple[Tensor, Tensor]:
    return tensor([chosen], requires_grad=True), tensor([rejected], requires_grad=True)


def test_reward_loss_by_hand() -> None:
    # d = .77: P = sigma(.77) = .683521, loss -ln P = .380498, dL/dr_chosen = -(1 - P) = -.316479
    chosen, rejected = pair(0.24, -0.53)
    loss = bradley_terry_loss(chosen, rejected)
    loss.backward()
    assert_close(loss.item(), 0.380498, atol=1e-6, rtol=0)
    assert_close(math.exp(-loss.item()), 0.683521, atol=1e-6, rtol=0)
    assert_close(chosen.grad, tensor([-0.316479]), atol=1e-6, rtol=0)
    assert_close(rejected.grad, tensor([0.316479]), atol=1e-6, rtol=0)


def test_equal_rewards_cost_log_2() -> None:
    assert_close(bradley_terry_loss(*pair(5.0, 5.0)).item(), math.log(2))


def test_margin_and_centering_by_hand() -> None:
    # margin 1: softplus(1 - .77) = .814745;  .01 * (.24 - .53)^2 = .000841
    chosen, rejected = pair(0.24, -0.53)
    assert_close(bradley_terry_loss(chosen, rejected, margin=tensor([1.0])).item(), 0.814745, atol=1e-6, rtol=0)
    centered = bradley_terry_loss(chosen, rejected, center_coef=0.01)
    assert_close(centered.item(), 0.380498 + 0.000841, atol=1e-6, rtol=0)
    (gradient,) = torch.autograd.grad(centered, rejected)
    assert_close(gradient, tensor([0.316479 + 0.01 * 2 * -0.29]), atol=1e-6, rtol=0)


def test_ranking_of_three_by_hand() -> None:
    # Rewards (1, 0, -1): the pairs differ by 1, 2, 1. (2 softplus(-1) + softplus(-2)) / 3
    # = (2 * .313262 + .126928) / 3 = .251150; dL/dr_1 = -(sigma(-1) + sigma(-2)) / 3 = -.388144 / 3 = -.129381
    rewards = tensor([1.0, 0.0, -1.0], requires_grad=True)
    third = torch.full((3,), 1 / 3)
    loss = bradley_terry_loss(rewards[[0, 0, 1]], rewards[[1, 2, 2]], weight=third)
    loss.backward()
    assert_close(loss.item(), 0.251150, atol=1e-6, rtol=0)
    assert_close(rewards.grad, tensor([-0.129381, 0.0, 0.129381]), atol=1e-6, rtol=0)


def test_a_soft_label_is_cheapest_where_the_odds_agree() -> None:
    # p = .6: minimum at d = ln 1.5 = .405465, loss there = entropy of (.6, .4) = .673012
    chosen, rejected = pair(0.405465, 0.0)
    loss = bradley_terry_loss(chosen, rejected, p=tensor([0.6]))
    loss.backward()
    assert_close(loss.item(), 0.673012, atol=1e-6, rtol=0)
    assert_close(chosen.grad, tensor([0.0]), atol=1e-6, rtol=0)


def test_a_margin_moves_the_optimum_of_a_soft_label() -> None:
    chosen, rejected = pair(1.405465, 0.0)
    bradley_terry_loss(chosen, rejected, p=tensor([0.6]), margin=tensor([1.0])).backward()
    assert_close(chosen.grad, tensor([0.0]), atol=1e-6, rtol=0)


def test_prompts_weigh_the_same_however_many_completions_were_ranked() -> None:
    # One prompt with one pair, one with three: (ln 2 + .251150) / 2
    rewards = tensor([1.0, 0.0, -1.0, 4.0, 4.0])
    chosen, rejected = rewards[[0, 0, 1, 3]], rewards[[1, 2, 2, 4]]
    weight = tensor([1 / 3, 1 / 3, 1 / 3, 1.0])
    expected = (math.log(2) + 0.251150) / 2
    assert_close(bradley_terry_loss(chosen, rejected, weight=weight).item(), expected, atol=1e-6, rtol=0)
    # The micro-batch with the first prompt alone, of a step of two prompts, gives its half of that.
    half = bradley_terry_loss(chosen[:3], rejected[:3], weight=weight[:3], num_groups=2)
    assert_close(half.item(), 0.251150 / 2, atol=1e-6, rtol=0)


def test_extreme_differences_do_not_overflow() -> None:
    chosen, rejected = pair(-1e4, 1e4)
    loss = bradley_terry_loss(chosen, rejected)
    loss.backward()
    assert_close(loss.item(), 2e4)
    assert_close(chosen.grad, tensor([-1.0]))
    assert bradley_terry_loss(*pair(1e4, -1e4)).item() == 0


rewards = st.floats(-20, 20, width=32)


@given(rewards, rewards, st.floats(-20, 20, width=32), st.floats(0, 1, width=32))
def test_adding_a_constant_to_both_rewards_changes_nothing(r_j: float, r_k: float, shift: float, p: float) -> None:
    here = bradley_terry_loss(tensor([r_j]), tensor([r_k]), p=tensor([p]))
    there = bradley_terry_loss(tensor([r_j + shift]), tensor([r_k + shift]), p=tensor([p]))
    assert_close(here, there, atol=1e-4, rtol=1e-4)


@given(rewards, rewards, st.floats(0, 1, width=32))
def test_exchanging_the_sides_and_their_chances_changes_nothing(r_j: float, r_k: float, p: float) -> None:
    here = bradley_terry_loss(tensor([r_j]), tensor([r_k]), p=tensor([p]))
    assert_close(bradley_terry_loss(tensor([r_k]), tensor([r_j]), p=1 - tensor([p])), here)


@given(st.integers(0, 2**32 - 1), st.integers(2, 9))
def test_two_half_batches_give_the_gradient_of_the_whole(seed: int, pairs: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(2, pairs, generator=generator, requires_grad=True)
    p, margin, weight = torch.rand(3, pairs, generator=generator)

    def loss(rows: slice) -> Tensor:
        return bradley_terry_loss(
            scores[0, rows], scores[1, rows],
            p=p[rows], margin=margin[rows], weight=weight[rows], center_coef=0.01, num_groups=weight.sum().item(),
        )  # fmt: skip

    half = pairs // 2
    (found,) = torch.autograd.grad(loss(slice(half)) + loss(slice(half, None)), scores)
    whole = bradley_terry_loss(*scores, p=p, margin=margin, weight=weight, center_coef=0.01)
    (expected,) = torch.autograd.grad(whole, scores)
    assert_close(found, expected)


def test_half_precision_rewards_are_subtracted_in_float32() -> None:
    loss = bradley_terry_loss(tensor([100.0]).bfloat16(), tensor([99.5]).bfloat16(), center_coef=1.0)
    assert_close(loss.item(), math.log1p(math.exp(-0.5)) + 199.5**2)
    assert loss.dtype == torch.float32


def test_dpo_by_hand() -> None:
    # h = (-10 + 11) - (-12 + 11.5) = 1.5; softplus(-.15) = .620957; coefficient beta sigma(-.15) = .046257
    chosen, rejected = pair(-10.0, -12.0)
    loss = dpo_loss(chosen, rejected, tensor([-11.0]), tensor([-11.5]), beta=0.1)
    assert loss.shape == (1,)
    loss.sum().backward()
    assert_close(loss.item(), 0.620957, atol=1e-6, rtol=0)
    assert_close(chosen.grad, tensor([-0.046257]), atol=1e-6, rtol=0)
    assert_close(rejected.grad, tensor([0.046257]), atol=1e-6, rtol=0)


def test_conservative_dpo_by_hand() -> None:
    # label noise .1: .9 * .620957 + .1 * (.620957 + .15) = .635957
    loss = dpo_loss(*pair(-10.0, -12.0), tensor([-11.0]), tensor([-11.5]), beta=0.1, p=tensor([0.9]))
    assert_close(loss.item(), 0.635957, atol=1e-6, rtol=0)
    # no gradient at beta h = ln 9, h = 21.972246
    chosen, rejected = pair(21.972246, 0.0)
    dpo_loss(chosen, rejected, tensor([0.0]), tensor([0.0]), beta=0.1, p=tensor([0.9])).sum().backward()
    assert_close(chosen.grad, tensor([0.0]), atol=1e-7, rtol=0)


logprobs = st.floats(-300, 0, width=32)


@given(logprobs, logprobs, st.floats(0.01, 1), st.floats(0, 1, width=32))
def test_dpo_starts_at_log_2(chosen: float, rejected: float, beta: float, p: float) -> None:
    policy = tensor([chosen]), tensor([rejected])
    assert_close(dpo_loss(*policy, *policy, beta=beta), tensor([math.log(2)]))
    assert_close(dpo_loss(*policy, *policy, beta=beta, p=tensor([p])), tensor([math.log(2)]))


def test_dpo_of_infinitely_many_comparisons_ends_at_the_optimum_of_the_bandit() -> None:
    # Comparisons by Bradley-Terry on rewards (1, 0): p = sigma(1). At beta 1 and a uniform reference the fixed point
    # is log pi_0 / pi_1 = 1, that is pi = (.731059, .268941).
    policy = tensor([0.731059, 0.268941]).log().requires_grad_()
    reference = tensor([0.5]).log()
    dpo_loss(policy[:1], policy[1:], reference, reference, beta=1.0, p=torch.sigmoid(tensor([1.0]))).sum().backward()
    assert_close(policy.grad, torch.zeros(2), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logprobs_are_subtracted_in_float32(dtype: torch.dtype) -> None:
    loss = dpo_loss(*(tensor([x], dtype=dtype) for x in (-256.0, -130.0, -0.5, -0.25)), beta=0.1)
    assert_close(loss, tensor([math.log1p(math.exp(12.575))]))  # h = -255.5 + 129.75 = -125.75
