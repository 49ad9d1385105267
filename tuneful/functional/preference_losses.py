"""Losses that learn from pairs: `chosen` is the side that was preferred, or is preferred with probability `p`."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from tuneful.functional.precision import widen


def bradley_terry_loss(
    chosen: Tensor,
    rejected: Tensor,
    *,
    p: Tensor | None = None,
    margin: Tensor | None = None,
    weight: Tensor | None = None,
    center_coef: float = 0.0,
    num_groups: float | None = None,
) -> Tensor:
    """Loss of a reward model on pairs, a scalar: -p log sigma(d) - (1 - p) log sigma(-d), d = chosen - rejected.

    Without `p` this is -log sigma(d) (Ouyang et al. 2022, eq. 1). With it the fixed point is d = logit p. Adding the
    same number to both rewards of a pair changes nothing, unless the rewards are centered.

    chosen, rejected: rewards, float [P].
    p: float [P], probability that `chosen` is preferred; None: 1.
    margin: float [P], subtracted from d (Touvron et al. 2023, eq. 2).
    weight: float [P]; None: 1. A ranking of K completions gives its C(K, 2) pairs 1 / C(K, 2) each.
    center_coef: adds center_coef * (chosen + rejected)^2 to each pair, which pulls the mean reward to 0
    (Eisenstein et al. 2023, arXiv 2312.09244).
    num_groups: what the weighted sum is divided by, the prompts of the whole optimizer step; None: the sum of weights.
    """
    chosen, rejected = widen(chosen), widen(rejected)
    difference = chosen - rejected if margin is None else chosen - rejected - margin
    loss = _soft_label_loss(difference, p) + center_coef * (chosen + rejected).square()
    if weight is None:
        return loss.sum() / (len(loss) if num_groups is None else num_groups)
    return (weight * loss).sum() / (weight.sum() if num_groups is None else num_groups)


def pair_accuracy(margin: Tensor) -> Tensor:
    """1 where the chosen side is ahead, ½ at a tie, 0 where it is behind. margin: [P] -> float32 [P]."""
    return (margin > 0).float() + 0.5 * (margin == 0).float()


def dpo_loss(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float,
    p: Tensor | None = None,
) -> Tensor:
    """Loss of each pair, [P]: -log sigma(beta h) (Rafailov et al. 2023, eq. 7), log 2 where policy and reference agree.

    h = (chosen - reference_chosen) - (rejected - reference_rejected), each the log-probability of a completion under
    the policy or the reference, summed (not averaged) over its tokens, end token included: float [P].
    beta: weight of the KL to the reference. p: float [P], probability that `chosen` is preferred; None: 1. With p =
    1 - e this is conservative DPO with label noise e, whose fixed point is beta h = logit p.
    """
    chosen_log_ratio = widen(chosen) - widen(reference_chosen)
    rejected_log_ratio = widen(rejected) - widen(reference_rejected)
    return _soft_label_loss(beta * (chosen_log_ratio - rejected_log_ratio), p)


def _soft_label_loss(difference: Tensor, p: Tensor | None) -> Tensor:
    """Cross-entropy between the label `p` and sigma(difference), [P]; logsigmoid does not overflow."""
    if p is None:
        return -logsigmoid(difference)
    return -p * logsigmoid(difference) - (1 - p) * logsigmoid(-difference)
