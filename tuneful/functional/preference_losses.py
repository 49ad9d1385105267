"""Losses that learn from what people prefer: `chosen` is the preferred side of a pair, or is so with probability `p`.

With `p` every loss of a pair is its mean over both ways in which the pair may have been judged: p times the loss of the
pair as it stands and 1 - p times that of its sides exchanged. A reward model's margin stays with `chosen` in both.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
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


def plackett_luce_loss(scores: Tensor, ranks: Tensor) -> Tensor:
    """Negative log-likelihood of whole rankings, float32 [R]: at each place the one that stands there is chosen among
    all that are left, by softmax of their scores (Plackett 1975, Luce 1959).

    scores: rewards, float [R, K]. ranks: int [R, K], 1 is best; 0 was not ranked and is among nobody's rivals. Those of
    equal rank are each chosen among their equals and all behind them (Breslow 1974). A ranking of two is one
    Bradley-Terry pair; a tie of two is the pair in both its orders.
    """
    scores, ranked = widen(scores), ranks > 0
    rivals = ranked[:, None, :] & (ranks[:, None, :] >= ranks[:, :, None])
    among = scores[:, None, :].masked_fill(~rivals, -torch.inf).logsumexp(-1)
    return (among - scores).masked_fill(~ranked, 0.0).sum(-1)


def classifier_loss(scores: Tensor, good: Tensor) -> Tensor:
    """Loss of a classifier on direct feedback, float32 [N]: -good log sigma(s) - (1 - good) log sigma(-s), s the score.

    scores: rewards, float [N], which become log-odds. good: float [N], 1, 0, or a probability between.
    """
    return _soft_label_loss(widen(scores), good)


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
    return _soft_label_loss(beta * _log_ratios_apart(chosen, rejected, reference_chosen, reference_rejected), p)


def robust_dpo_loss(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float,
    label_noise: float,
    p: Tensor | None = None,
) -> Tensor:
    """Loss of each pair, [P]: ((1 - e) L - e L') / (1 - 2 e) (Chowdhury et al. 2024, arXiv 2403.00409).

    L is the DPO loss of the pair and L' that of its sides exchanged; the rest as in `dpo_loss`. If labels are exchanged
    with probability e = label_noise, 0 <= e < 1/2, this has the mean that L has on labels without noise. It is the DPO
    loss with p replaced by (p - e) / (1 - 2 e), which may lie outside [0, 1]: then there is no fixed point, and no
    lower bound.
    """
    noisy = torch.ones_like(chosen) if p is None else p
    clean = (widen(noisy) - label_noise) / (1 - 2 * label_noise)
    return _soft_label_loss(beta * _log_ratios_apart(chosen, rejected, reference_chosen, reference_rejected), clean)


def ipo_loss(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float,
    p: Tensor | None = None,
) -> Tensor:
    """Loss of each pair, [P]: (h - 1 / (2 beta))^2 (Azar et al. 2023, arXiv 2310.12036, eq. 17, where beta is tau).

    h as in `dpo_loss`, but of log-probabilities that are means over the tokens of a completion: float [P]. So did the
    paper's authors, as they told TRL; the text does not say it. With p the fixed point is h = (2 p - 1) / (2 beta).
    """
    h = _log_ratios_apart(chosen, rejected, reference_chosen, reference_rejected)
    target = 1 / (2 * beta)
    return _mean_over_labels((h - target).square(), (h + target).square(), p)


@dataclass(frozen=True, slots=True)
class ORPOLoss:
    """ORPO's loss of each pair and its parts, float32 [P]; all have gradients."""

    loss: Tensor
    """nll + odds_ratio_coef * odds_ratio_loss."""
    nll: Tensor
    """Mean negative log-likelihood per token of the completion to imitate."""
    odds_ratio_loss: Tensor
    """-log sigma(log_odds_ratio)."""
    log_odds_ratio: Tensor
    """Of chosen over rejected."""


def orpo_loss(chosen: Tensor, rejected: Tensor, *, odds_ratio_coef: float, p: Tensor | None = None) -> ORPOLoss:
    """NLL and odds ratio together (Hong et al. 2024, arXiv 2403.07691, eq. 6 and 7); there is no reference.

    chosen, rejected: log-probabilities m of completions, means over their tokens, float [P]. Their odds are q / (1 - q)
    with q = e^m (eq. 3 and 4). q is held 1.2e-7 below 1, where float32 ends, so that odds stay finite; beyond it m has
    no gradient from the odds.
    """
    chosen, rejected = widen(chosen), widen(rejected)
    log_odds_ratio = _log_odds(chosen) - _log_odds(rejected)
    nll = _mean_over_labels(-chosen, -rejected, p)
    odds_ratio_loss = _soft_label_loss(log_odds_ratio, p)
    return ORPOLoss(nll + odds_ratio_coef * odds_ratio_loss, nll, odds_ratio_loss, log_odds_ratio)


def simpo_loss(
    chosen: Tensor, rejected: Tensor, *, beta: float, target_margin: float, p: Tensor | None = None
) -> Tensor:
    """Loss of each pair, [P]: -log sigma(beta (chosen - rejected) - gamma) (Meng et al. 2024, arXiv 2405.14734, eq. 6).

    chosen, rejected: log-probabilities of completions, means over their tokens, float [P]; there is no reference.
    target_margin: gamma, by which the reward beta * chosen is to lead.
    """
    lead = beta * (widen(chosen) - widen(rejected))
    return _mean_over_labels(-logsigmoid(lead - target_margin), -logsigmoid(-lead - target_margin), p)


def kto_loss(
    log_ratio: Tensor,
    desirable: Tensor,
    *,
    beta: float,
    reference_point: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """Loss of each single answer, [N] (Ethayarajh et al. 2024, arXiv 2402.01306, eq. 8), without its constant.

    lambda_D (1 - sigma(beta (l - z0))) for a desirable answer, lambda_U (1 - sigma(beta (z0 - l))) for another one. At
    l = z0 that is half of lambda.
    log_ratio: l, the log-probability of each answer under the policy less that under the reference, summed over its
    tokens: float [N]. desirable: [N], bool, or the probability that the answer is a good one; the loss is then the mean
    over both labels, which for equal weights is an answer that counts 2 p - 1.
    reference_point: z0, a number and so without gradient. desirable_weight, undesirable_weight: lambda_D and lambda_U.
    """
    gain = beta * (widen(log_ratio) - reference_point)
    good = desirable_weight * torch.sigmoid(-gain)
    bad = undesirable_weight * torch.sigmoid(gain)
    return _mean_over_labels(good, bad, widen(desirable))


def _log_ratios_apart(chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor) -> Tensor:
    """How far the log-ratio to the reference is larger for `chosen`, [P]: h of DPO and IPO."""
    return (widen(chosen) - widen(reference_chosen)) - (widen(rejected) - widen(reference_rejected))


def _log_odds(logprob: Tensor) -> Tensor:
    """log(q / (1 - q)) of q = e^logprob."""
    below = logprob.clamp(max=-torch.finfo(logprob.dtype).eps)
    return logprob - torch.log(-torch.expm1(below))


def _soft_label_loss(difference: Tensor, p: Tensor | None) -> Tensor:
    """Cross-entropy between the label `p` and sigma(difference), [P]; logsigmoid does not overflow."""
    return _mean_over_labels(-logsigmoid(difference), -logsigmoid(-difference), p)


def _mean_over_labels(as_labeled: Tensor, exchanged: Tensor, p: Tensor | None) -> Tensor:
    """The mean of two losses of which the first holds with probability `p`; None: 1."""
    return as_labeled if p is None else p * as_labeled + (1 - p) * exchanged
