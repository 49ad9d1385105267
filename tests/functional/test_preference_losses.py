import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, tensor
from torch.testing import assert_close

from tuneful.functional.preference_losses import (
    bradley_terry_loss,
    classifier_loss,
    dpo_loss,
    ipo_loss,
    kto_loss,
    orpo_loss,
    plackett_luce_loss,
    robust_dpo_loss,
    simpo_loss,
)


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


def test_robust_dpo_by_hand() -> None:
    # beta h = .15: L = .620957, exchanged .770957. (.9 * .620957 - .1 * .770957) / .8 = .602207
    loss = robust_dpo_loss(*pair(-10.0, -12.0), tensor([-11.0]), tensor([-11.5]), beta=0.1, label_noise=0.1)
    assert loss.shape == (1,)
    assert_close(loss.item(), 0.602207, atol=1e-6, rtol=0)


def test_robust_dpo_goes_for_what_labels_said_before_they_were_exchanged() -> None:
    # Of clean labels p = .875; a tenth of them exchanged leaves .9 * .875 + .1 * .125 = .8. Fixed point: logit .875 =
    # ln 7, h = 19.459101.
    chosen, rejected = pair(19.459101, 0.0)
    robust_dpo_loss(
        chosen, rejected, tensor([0.0]), tensor([0.0]), beta=0.1, label_noise=0.1, p=tensor([0.8])
    ).sum().backward()
    assert_close(chosen.grad, tensor([0.0]), atol=1e-7, rtol=0)


def test_robust_dpo_of_a_hard_label_has_no_lower_bound() -> None:
    # As h grows the loss falls by e / (1 - 2 e) = .125 for each unit of beta h.
    near, far = (
        robust_dpo_loss(*pair(h, 0.0), tensor([0.0]), tensor([0.0]), beta=1.0, label_noise=0.1).item()
        for h in (100.0, 200.0)
    )
    assert_close(far - near, -12.5, atol=1e-4, rtol=0)


@given(logprobs, logprobs, st.floats(0.01, 1), st.floats(0, 0.45))
def test_robust_dpo_on_exchanged_labels_is_dpo_on_clean_ones_in_the_mean(
    chosen: float, rejected: float, beta: float, noise: float
) -> None:
    sides, reference = (tensor([chosen]), tensor([rejected])), (tensor([-20.0]), tensor([-30.0]))
    kept = robust_dpo_loss(*sides, *reference, beta=beta, label_noise=noise)
    exchanged = robust_dpo_loss(*sides[::-1], *reference[::-1], beta=beta, label_noise=noise)
    clean = dpo_loss(*sides, *reference, beta=beta)
    assert_close((1 - noise) * kept + noise * exchanged, clean, atol=1e-3, rtol=1e-4)


def test_ipo_by_hand() -> None:
    # h = 1.5, target 1 / (2 * .1) = 5: (1.5 - 5)^2 = 12.25, gradient 2 * (1.5 - 5) = -7
    chosen, rejected = pair(-10.0, -12.0)
    loss = ipo_loss(chosen, rejected, tensor([-11.0]), tensor([-11.5]), beta=0.1)
    assert loss.shape == (1,)
    loss.sum().backward()
    assert_close(loss.item(), 12.25)
    assert_close(chosen.grad, tensor([-7.0]))
    assert_close(rejected.grad, tensor([7.0]))


def test_ipo_of_a_soft_label_is_cheapest_at_its_share_of_the_target() -> None:
    # p = .8: h = (2 * .8 - 1) * 5 = 3, where it costs .8 * (3 - 5)^2 + .2 * (3 + 5)^2 = 16
    chosen, rejected = pair(3.0, 0.0)
    loss = ipo_loss(chosen, rejected, tensor([0.0]), tensor([0.0]), beta=0.1, p=tensor([0.8]))
    loss.sum().backward()
    assert_close(loss.item(), 16.0)
    assert_close(chosen.grad, tensor([0.0]), atol=1e-5, rtol=0)


def test_orpo_by_hand() -> None:
    # q = e^-.5 = .606531, log odds .432752; q = e^-1 = .367879, log odds -.541325; they differ by .974077;
    # softplus(-.974077) = .320300; .5 + .1 * .320300 = .532030
    found = orpo_loss(*pair(-0.5, -1.0), odds_ratio_coef=0.1)
    assert_close(found.log_odds_ratio.item(), 0.432752 + 0.541325, atol=1e-6, rtol=0)
    assert_close(found.odds_ratio_loss.item(), 0.320300, atol=1e-6, rtol=0)
    assert_close(found.nll.item(), 0.5)
    assert_close(found.loss.item(), 0.532030, atol=1e-6, rtol=0)
    assert_close(orpo_loss(*pair(-1.0, -1.0), odds_ratio_coef=0.1).odds_ratio_loss.item(), math.log(2))


def test_orpo_imitates_both_sides_of_an_unsure_pair() -> None:
    # p = .8: NLL .8 * .5 + .2 * 1 = .6; .320300 + .2 * .974077 = .515115; .6 + .1 * .515115 = .651512
    found = orpo_loss(*pair(-0.5, -1.0), odds_ratio_coef=0.1, p=tensor([0.8]))
    assert_close(found.nll.item(), 0.6)
    assert_close(found.loss.item(), 0.651512, atol=1e-6, rtol=0)


@pytest.mark.parametrize("sides", [(0.0, -1.0), (-1.0, 0.0), (0.0, 0.0), (-1e4, -1e-8), (-1e-8, -1e4)])
def test_odds_of_certain_and_of_impossible_completions_are_finite(sides: tuple[float, float]) -> None:
    chosen, rejected = pair(*sides)
    loss = orpo_loss(chosen, rejected, odds_ratio_coef=0.25).loss
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(chosen.grad).all() and torch.isfinite(rejected.grad).all()  # type: ignore[arg-type]


def test_simpo_by_hand() -> None:
    # 2 * (-.5 + 1) = 1: with margin 1 ln 2, gradient -2 / 2; with .5 softplus(-.5) = .474077; without softplus(-1)
    chosen, rejected = pair(-0.5, -1.0)
    loss = simpo_loss(chosen, rejected, beta=2.0, target_margin=1.0)
    assert loss.shape == (1,)
    loss.sum().backward()
    assert_close(loss.item(), math.log(2))
    assert_close(chosen.grad, tensor([-1.0]))
    assert_close(simpo_loss(*pair(-0.5, -1.0), beta=2.0, target_margin=0.5).item(), 0.474077, atol=1e-6, rtol=0)
    assert_close(simpo_loss(*pair(-0.5, -1.0), beta=2.0, target_margin=0.0).item(), 0.313262, atol=1e-6, rtol=0)
    assert_close(simpo_loss(*pair(-1e4, 0.0), beta=2.0, target_margin=1.0).item(), 20001.0)


def test_kto_by_hand() -> None:
    # beta (l - z0) = .1 * .8 = .08: 1 - sigma(.08) = .480011, 1 - sigma(-.08) = .519989; slope .1 * the product
    log_ratio = tensor([1.0, 1.0], requires_grad=True)
    loss = kto_loss(log_ratio, tensor([True, False]), beta=0.1, reference_point=0.2)
    loss.sum().backward()
    assert_close(loss, tensor([0.480011, 0.519989]), atol=1e-6, rtol=0)
    assert_close(log_ratio.grad, tensor([-0.024960, 0.024960]), atol=1e-6, rtol=0)
    weighed = kto_loss(
        tensor([1.0, 1.0]),
        tensor([True, False]),
        beta=0.1,
        reference_point=0.2,
        desirable_weight=2.0,
        undesirable_weight=3.0,
    )
    assert_close(weighed, tensor([0.960022, 1.559967]), atol=1e-5, rtol=0)


def test_kto_starts_at_a_half_and_saturates() -> None:
    labels = tensor([True, False])
    assert_close(kto_loss(tensor([0.0, 0.0]), labels, beta=0.1, reference_point=0.0), tensor([0.5, 0.5]))
    far = tensor([1e4, -1e4], requires_grad=True)
    loss = kto_loss(far, labels, beta=0.1, reference_point=0.0)
    loss.sum().backward()
    assert_close(loss, tensor([0.0, 0.0]))
    assert_close(far.grad, tensor([0.0, 0.0]))


@given(st.floats(-9, 9), st.floats(0, 3), st.floats(0, 1, width=32))
def test_an_unsure_answer_counts_less_in_kto(log_ratio: float, point: float, p: float) -> None:
    """With equal weights its gradient is 2 p - 1 times that of a sure one."""

    def gradient(desirable: Tensor) -> Tensor:
        at = tensor([log_ratio], requires_grad=True)
        loss = kto_loss(at, desirable, beta=0.5, reference_point=point)
        (found,) = torch.autograd.grad(loss.sum(), at)
        return found

    assert_close(gradient(tensor([p])), (2 * p - 1) * gradient(tensor([True])), atol=1e-6, rtol=1e-4)


PairLoss = Callable[[Tensor, Tensor, Tensor | None], Tensor]
OF_PAIRS: dict[str, PairLoss] = {
    "dpo": lambda c, r, p: dpo_loss(c, r, tensor([-3.0]), tensor([-3.0]), beta=0.5, p=p),
    "robust": lambda c, r, p: robust_dpo_loss(c, r, tensor([-3.0]), tensor([-3.0]), beta=0.5, label_noise=0.2, p=p),
    "ipo": lambda c, r, p: ipo_loss(c, r, tensor([-3.0]), tensor([-3.0]), beta=0.5, p=p),
    "orpo": lambda c, r, p: orpo_loss(c, r, odds_ratio_coef=0.5, p=p).loss,
    "simpo": lambda c, r, p: simpo_loss(c, r, beta=2.0, target_margin=1.0, p=p),
}


@pytest.mark.parametrize("loss", OF_PAIRS.values(), ids=OF_PAIRS)
@given(chosen=st.floats(-9, -0.01), rejected=st.floats(-9, -0.01), p=st.floats(0, 1, width=32))
def test_a_soft_label_is_the_mean_over_both_hard_ones(loss: PairLoss, chosen: float, rejected: float, p: float) -> None:
    """So exchanging the sides and their chances changes nothing, and p = 1 is no label at all."""
    better, worse = tensor([chosen]), tensor([rejected])
    expected = p * loss(better, worse, None) + (1 - p) * loss(worse, better, None)
    assert_close(loss(better, worse, tensor([p])), expected, atol=1e-4, rtol=1e-4)


def test_half_precision_is_widened_before_anything_is_taken_apart() -> None:
    """In bfloat16, of eight bits, -256 and -255.5 are one number."""
    half = [tensor([x], dtype=torch.bfloat16) for x in (-256.0, -130.0, -0.5, -0.25)]
    assert_close(ipo_loss(*half, beta=0.5), tensor([(-125.75 - 1) ** 2]))  # h = -255.5 + 129.75
    noisy = robust_dpo_loss(
        *half, beta=0.1, label_noise=0.25
    )  # (.75 * (x + 12.575) - .25 x) / .5, x = softplus(-12.575)
    assert_close(noisy, tensor([1.5 * 12.575 + math.log1p(math.exp(-12.575))]))
    small = [tensor([x], dtype=torch.bfloat16) for x in (-0.0009765625, -0.5)]  # 2^-10
    odds = [math.log(math.exp(x) / -math.expm1(x)) for x in (-0.0009765625, -0.5)]
    assert_close(orpo_loss(*small, odds_ratio_coef=0.1).log_odds_ratio, tensor([odds[0] - odds[1]]))
    assert simpo_loss(*small, beta=2.0, target_margin=1.0).dtype == torch.float32
    kto = kto_loss(tensor([-256.0], dtype=torch.bfloat16), tensor([True]), beta=0.01, reference_point=0.25)
    assert_close(kto, tensor([1 / (1 + math.exp(-2.5625))]))


def ranked(scores: list[float], ranks: list[int]) -> float:
    return float(plackett_luce_loss(tensor([scores]), tensor([ranks]))[0])


def test_a_ranking_of_three_by_hand() -> None:
    # First of (1, 0, -1): ln(e + 1 + 1/e) - 1 = .407606. Then of (0, -1): ln(1 + 1/e) = .313262. The last is alone.
    assert ranked([1.0, 0.0, -1.0], [1, 2, 3]) == pytest.approx(0.720868, abs=1e-6)
    assert ranked([0.0, -1.0, 1.0], [2, 3, 1]) == pytest.approx(0.720868, abs=1e-6)


def test_a_ranking_of_two_is_a_pair_and_a_tie_both_its_orders() -> None:
    as_pair = float(bradley_terry_loss(tensor([0.3]), tensor([-0.9])))
    exchanged = float(bradley_terry_loss(tensor([-0.9]), tensor([0.3])))
    assert ranked([0.3, -0.9], [1, 2]) == pytest.approx(as_pair)
    assert ranked([0.3, -0.9], [1, 1]) == pytest.approx(as_pair + exchanged)


def test_all_orders_of_four_are_one_of_them() -> None:
    orders = tensor(list(itertools.permutations((1, 2, 3, 4))))
    scores = tensor([0.4, -1.2, 2.0, 0.1]).expand(24, 4)
    assert float((-plackett_luce_loss(scores, orders)).exp().sum()) == pytest.approx(1.0, abs=1e-6)


def test_what_was_not_ranked_is_nobodys_rival_and_gets_no_gradient() -> None:
    scores = tensor([[1.0, 50.0, 0.0, -1.0]], requires_grad=True)
    loss = plackett_luce_loss(scores, tensor([[1, 0, 2, 3]])).sum()
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.720868, abs=1e-6)
    assert scores.grad is not None
    assert scores.grad[0, 1] == 0
    # dL/dr of the first: its share of the first choice less 1, e / (e + 1 + 1/e) - 1 = -.334759.
    assert float(scores.grad[0, 0]) == pytest.approx(-0.334759, abs=1e-6)


def test_direct_feedback_by_hand() -> None:
    # s = 2: -ln sigma(2) = .126928, -ln sigma(-2) = 2.126928; a quarter of the one and three of the other: 1.626928.
    losses = classifier_loss(tensor([0.0, 2.0, 2.0, 2.0]), tensor([1.0, 1.0, 0.0, 0.25]))
    assert losses.tolist() == pytest.approx([math.log(2), 0.126928, 2.126928, 1.626928], abs=1e-6)
