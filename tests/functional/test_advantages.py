import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, tensor
from torch.testing import assert_close

from tuneful.functional.advantages import gae, group_advantages, leave_one_out, rewards_at_end, shape_rewards

REWARDS = tensor([[-0.1, -0.2, 1.0]])
VALUES = tensor([[0.5, 0.4, 0.3]])


def test_rewards_by_hand() -> None:
    # k1 = (.5, -.5, 1, 2); beta .1; score 3 on the last counted token, which is not the last column in row 1
    logprobs = tensor([[-1.0, -1.0, -1.0, -1.0]]).expand(2, -1)
    reference = tensor([[-1.5, -0.5, -2.0, -3.0]]).expand(2, -1)
    mask = tensor([[True, True, True, True], [True, True, False, False]])
    rewards = shape_rewards(tensor([3.0, 3.0]), logprobs, reference, mask, kl_coef=0.1)
    assert_close(rewards, tensor([[-0.05, 0.05, -0.1, 2.8], [-0.05, 3.05, 0.0, 0.0]]))


def test_the_score_is_the_reward_of_the_last_token_that_counts() -> None:
    mask = tensor([[True, True, True], [True, True, False], [False, True, False], [False, False, False]])
    rewards = rewards_at_end(tensor([1.0, 2.0, 3.0, 4.0]), mask)
    assert_close(rewards, tensor([[0.0, 0.0, 1.0], [0.0, 2.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 0.0]]))


def test_text_a_tool_inserted_gets_neither_penalty_nor_score() -> None:
    logprobs, reference = torch.zeros(2, 4), torch.full((2, 4), -1.0)
    mask = tensor([[True, False, True, False], [False, True, False, False]])
    rewards = shape_rewards(tensor([3.0, 5.0]), logprobs, reference, mask, kl_coef=0.5)
    assert_close(rewards, tensor([[-0.5, 0.0, 2.5, 0.0], [0.0, 4.5, 0.0, 0.0]]))


@pytest.mark.parametrize("length", [0, 3])
def test_a_row_in_which_nothing_counts_gets_nothing(length: int) -> None:
    stray = torch.full((2, length), math.nan)
    rewards = shape_rewards(tensor([1.0, 2.0]), stray, stray, torch.zeros(2, length, dtype=torch.bool), kl_coef=0.3)
    assert_close(rewards, torch.zeros(2, length))


@pytest.mark.parametrize("beta", [1.0, 0.5, 0.1])
def test_at_the_optimum_of_the_bandit_both_arms_are_worth_the_same(beta: float) -> None:
    # Rewards (1, 0), uniform reference: pi = e^(R / beta) / (e^(1 / beta) + 1), each arm worth beta ln Z with
    # Z = (e^(1 / beta) + 1) / 2. For beta 1: pi = (.731059, .268941), worth .620115.
    odds = math.exp(1 / beta)
    policy = tensor([[odds / (odds + 1)], [1 / (odds + 1)]]).log()
    reference = tensor([[0.5], [0.5]]).log()
    rewards = shape_rewards(tensor([1.0, 0.0]), policy, reference, torch.ones(2, 1, dtype=torch.bool), kl_coef=beta)
    worth = beta * math.log((odds + 1) / 2)
    assert_close(rewards, torch.full((2, 1), worth), atol=1e-5, rtol=0)
    if beta == 1.0:
        assert_close(worth, 0.620115, atol=1e-6, rtol=0)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 9), st.floats(0, 2))
def test_rewards_of_a_completion_sum_to_its_score_less_the_penalty(seed: int, n: int, t: int, kl_coef: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logprobs, reference = -3 * torch.rand(2, n, t, generator=generator)
    mask = torch.rand(n, t, generator=generator) < 0.7
    mask[:, 0] = True
    scores = torch.randn(n, generator=generator)
    rewards = shape_rewards(scores, logprobs, reference, mask, kl_coef=kl_coef)
    penalty = kl_coef * ((logprobs - reference) * mask).sum(1)
    assert_close(rewards.sum(1), scores - penalty, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("lam", "expected"),
    [
        # deltas: -.1 + .4 - .5 = -.2;  -.2 + .3 - .4 = -.3;  1 - .3 = .7
        (0.95, [0.146750, 0.365000, 0.700000]),  # -.3 + .95 * .7 = .365; -.2 + .95 * .365 = .14675
        (1.0, [0.2, 0.4, 0.7]),  # Monte-Carlo returns (.7, .8, 1) minus the values
        (0.0, [-0.2, -0.3, 0.7]),  # the deltas themselves
    ],
)
def test_gae_by_hand(lam: float, expected: list[float]) -> None:
    advantages, returns = gae(REWARDS, VALUES, torch.ones(1, 3, dtype=torch.bool), gamma=1.0, lam=lam)
    assert_close(advantages, tensor([expected]), atol=1e-6, rtol=0)
    assert_close(returns, tensor([expected]) + VALUES, atol=1e-6, rtol=0)


def test_gae_discounts() -> None:
    # gamma 1/2, lambda 1: returns 1; -.2 + .5 = .3; -.1 + .15 = .05
    advantages, returns = gae(REWARDS, VALUES, torch.ones(1, 3, dtype=torch.bool), gamma=0.5, lam=1.0)
    assert_close(returns, tensor([[0.05, 0.3, 1.0]]))
    assert_close(advantages, tensor([[-0.45, -0.1, 0.7]]))


def test_gae_steps_over_text_a_tool_inserted() -> None:
    mask = tensor([[True, False, False, True, False, True, False]])
    stray = math.nan
    rewards = tensor([[-0.1, stray, 5.0, -0.2, 6.0, 1.0, stray]])
    values = tensor([[0.5, 7.0, stray, 0.4, 8.0, 0.3, 9.0]])
    advantages, returns = gae(rewards, values, mask, gamma=1.0, lam=0.95)
    assert_close(advantages, tensor([[0.14675, 0.0, 0.0, 0.365, 0.0, 0.7, 0.0]]))  # as without the holes
    assert_close(returns, tensor([[0.64675, 0.0, 0.0, 0.765, 0.0, 1.0, 0.0]]))


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 9), st.floats(0, 1), st.floats(0, 1))
def test_gae_of_a_row_does_not_know_its_batch_its_padding_or_its_holes(
    seed: int, n: int, t: int, gamma: float, lam: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    rewards, values = torch.randn(2, n, t, generator=generator)
    mask = torch.rand(n, t, generator=generator) < 0.6
    advantages, returns = gae(rewards, values, mask, gamma=gamma, lam=lam)
    for row in range(n):
        counts = mask[row]
        alone = torch.ones(1, int(counts.sum()), dtype=torch.bool)
        expected = gae(rewards[row : row + 1, counts], values[row : row + 1, counts], alone, gamma=gamma, lam=lam)
        assert_close((advantages[row : row + 1, counts], returns[row : row + 1, counts]), expected)
        assert (advantages[row, ~counts] == 0).all() and (returns[row, ~counts] == 0).all()


@given(st.integers(0, 2**32 - 1), st.integers(1, 9))
def test_with_lambda_1_the_return_is_the_sum_of_rewards_to_come(seed: int, t: int) -> None:
    rewards, values = torch.randn(2, 1, t, generator=torch.Generator().manual_seed(seed))
    _, returns = gae(rewards, values, torch.ones(1, t, dtype=torch.bool), gamma=1.0, lam=1.0)
    assert_close(returns, rewards.flip(1).cumsum(1).flip(1), atol=1e-5, rtol=1e-5)


def test_half_precision_is_worked_on_in_float32() -> None:
    def rewards_and_advantages(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        policy, reference, values = tensor([[[-2.0, -1.0]], [[-1.5, -0.25]], [[256.0, 1.0]]], dtype=dtype)
        mask = torch.ones(1, 2, dtype=torch.bool)
        rewards = shape_rewards(tensor([255.0], dtype=dtype), policy, reference, mask, kl_coef=0.5)
        return rewards, *gae(rewards, values, mask, gamma=1.0, lam=1.0)

    assert_close(rewards_and_advantages(torch.bfloat16), rewards_and_advantages(torch.float32), atol=0, rtol=0)


def test_advantages_carry_no_gradient() -> None:
    values = VALUES.clone().requires_grad_()
    advantages, returns = gae(REWARDS, values, torch.ones(1, 3, dtype=torch.bool), gamma=1.0, lam=0.95)
    assert not advantages.requires_grad and not returns.requires_grad


def test_groups_by_hand() -> None:
    """Scores 1, 0, 0, 1: mean 1/2, standard deviation 1/2 over 4 and 1/sqrt(3) over 3; others' means 1/3 and 2/3."""
    scores = tensor([1.0, 0.0, 0.0, 1.0])
    up = 2 / 3
    assert_close(scores - leave_one_out(scores, 4), tensor([up, -up, -up, up]))
    assert_close(group_advantages(scores, 4, spread="none") * 4 / 3, tensor([up, -up, -up, up]))
    signs = tensor([1.0, -1.0, -1.0, 1.0])
    assert_close(group_advantages(scores, 4, spread="population"), signs, atol=3e-4, rtol=0)
    assert_close(group_advantages(scores, 4, spread="sample"), 0.866025 * signs, atol=3e-4, rtol=0)


@given(st.integers(0, 2**16), st.integers(2, 5), st.integers(1, 4))
def test_groups_do_not_see_each_other(seed: int, size: int, groups: int) -> None:
    scores = torch.randn(groups, size, generator=torch.Generator().manual_seed(seed))
    for k in range(groups):
        alone = leave_one_out(scores[k], size)
        assert_close(leave_one_out(scores.flatten(), size).view(groups, size)[k], alone)
        assert_close(alone, (scores[k].sum() - scores[k]) / (size - 1))
    for spread in ("sample", "population", "none"):
        advantages = group_advantages(scores.flatten(), size, spread=spread).view(groups, size)
        assert_close(advantages.sum(-1), torch.zeros(groups), atol=1e-4, rtol=0)
        assert_close(
            group_advantages(scores.flatten() + 7.5, size, spread=spread).view(groups, size),
            advantages,
            atol=1e-3,
            rtol=1e-3,
        )


def test_a_group_of_equal_scores_has_no_advantages() -> None:
    for spread in ("sample", "population", "none"):
        assert not group_advantages(tensor([0.5, 0.5, 3.0, 3.0]), 2, spread=spread).any()
        assert not group_advantages(tensor([123.4] * 8), 8, spread=spread).any()  # whose mean in float32 is another
