"""What is measured before the first step of a fresh RL run, and stops it when broken.

Most failed RL runs fail here: a reference that is not the model the policy started from, a reward that changes with the
padding, a sampler that computes something else than the trainer. Each finding names its likely cause.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, Protocol

import torch
from torch import Tensor

from tuneful.engines import ranks
from tuneful.engines.local import LocalEngine
from tuneful.errors import CheckError
from tuneful.functional.advantages import shape_rewards
from tuneful.functional.kl import k1
from tuneful.generation.rollout import Rollout
from tuneful.generation.sampling import Sampling, fold
from tuneful.models.forward import whole_model_logprobs
from tuneful.records import Completion, Prompt
from tuneful.rewards.classifier import ClassifierReward
from tuneful.rewards.learned import LearnedReward
from tuneful.rewards.reward import Reward, checked
from tuneful.rollouts.collect import collect, shared_scores

NUM_ROLLOUTS = 256


@dataclass(frozen=True, slots=True)
class Finding:
    """One measured fact: `value` must be below `bar`. A warning never stops a run."""

    name: str
    value: float
    bar: float
    cause: str
    warning: bool = False

    @property
    def passed(self) -> bool:
        return self.value < self.bar

    def __str__(self) -> str:
        return f"{self.name} is {self.value:.3g}, must be below {self.bar:g}: {self.cause}"


class RLConfig(Protocol):
    """The settings the checks read."""

    @property
    def sampling(self) -> Sampling: ...
    @property
    def kl_coef(self) -> float: ...
    @property
    def missing_eos_penalty(self) -> float: ...


def check_start(
    engine: LocalEngine,
    prompts: Sequence[Prompt],
    reward: Reward,
    config: RLConfig,
    *,
    seed: int,
    tuned: bool = False,
    rows: int = NUM_ROLLOUTS,
) -> list[Finding]:
    """Measure everything that must hold before the first step.

    tuned: the policy starts away from its reference on purpose, so their KL is reported and not judged. rows: how many
    rollouts are sampled and read together; as many as the run ever does, so that the checks need no more memory. Few
    cost time: 8 are 32 calls of the sampler.
    Raises CheckError with every broken finding; RewardError when a reward is not finite.
    """
    ends = _end_token(engine.tokenizer)
    _refuse_broken(ends[:1])  # without an end token nothing can be sampled
    sampling = replace(config.sampling, num_samples=1)
    asked = [prompts[i % len(prompts)] for i in range(NUM_ROLLOUTS)]
    penalty = config.missing_eos_penalty
    rollouts = [
        collect(
            engine, asked[at : at + rows], sampling, reward, seed=fold(seed, "check", at), missing_eos_penalty=penalty
        )
        for at in range(0, NUM_ROLLOUTS, rows)
    ]
    completions = list(chain.from_iterable(rollout.as_completions() for rollout in rollouts))
    findings = [
        *ends,
        *_logprobs(engine, rollouts, tuned=tuned),
        _shaping(rollouts, config.kl_coef),
        ranks.from_first(lambda: reward_invariance(reward, asked, completions)),
        _reward_mean(reward, asked, completions),
    ]
    _refuse_broken(findings)
    return findings


def _refuse_broken(findings: Sequence[Finding]) -> None:
    broken = [str(finding) for finding in findings if not finding.passed and not finding.warning]
    if broken:
        raise CheckError("the run was stopped before its first step: " + "; ".join(broken))


def _end_token(tokenizer: Any) -> list[Finding]:
    missing = Finding("missing end token", float(tokenizer.eos_token_id is None), 0.5, "set eos_token in the tokenizer")
    same = tokenizer.pad_token_id is not None and tokenizer.pad_token_id == tokenizer.eos_token_id
    cause = "give the tokenizer a pad token of its own, or readers cut completions one token early"
    return [missing, Finding("pad token equal to end token", float(same), 0.5, cause)]


def _logprobs(engine: LocalEngine, rollouts: Sequence[Rollout], *, tuned: bool) -> list[Finding]:
    policy = engine.roles.policy
    assert policy is not None
    half, bar = policy.half, policy.rounding
    measured = [engine.kl(rollout) for rollout in rollouts]
    kl, estimator = torch.cat([kl for kl, _ in measured]), measured[0][1]
    drift = torch.cat([(engine.score("policy", one) - one.logprobs).abs()[one.mask] for one in rollouts])
    away = _from_whole_model(engine, rollouts)
    largest = "mean" if half else "largest"
    return [
        Finding(
            f"KL(policy, reference) per completion ({estimator}) in nats",
            float(kl.mean().abs()),
            float("inf") if tuned else bar if half else 1e-3,
            "the reference is not the model the policy starts from; use the supervised model for both, "
            'or say start = "tuned" when the policy was tuned before',
        ),
        Finding(
            # In half precision the largest of thousands is rounding: a few tenths, in a model where nothing is wrong.
            f"{largest} logprob difference between sampler and trainer",
            float(drift.mean() if half else drift.max()),
            bar,
            "sampling and training compute different distributions; look at temperature, dtype and positions",
        ),
        Finding(
            f"{largest} logprob difference between sampler and the whole model, row by row",
            float(away.mean() if half else away.max()),
            bar,
            "rows beside each other are not what each is alone; this architecture is not supported, please report it",
        ),
    ]


@torch.no_grad()
def _from_whole_model(engine: LocalEngine, rollouts: Sequence[Rollout]) -> Tensor:
    """|difference| of the logprobs of the first 8 rows from those that transformers' model gives each alone, flat."""
    policy = engine.roles.policy
    assert policy is not None
    rows = chain.from_iterable(zip(one.prompts, one.completions, one.logprobs, strict=True) for one in rollouts)
    return torch.cat(
        [
            whole_model_logprobs(policy, prompt, completion, rollouts[0].temperature) - logprobs[: len(completion)]
            for prompt, completion, logprobs in islice(rows, 8)
        ]
    ).abs()


def _shaping(rollouts: Sequence[Rollout], kl_coef: float) -> Finding:
    def error(rollout: Rollout) -> float:
        scores, reference = rollout.scores, rollout.reference_logprobs
        assert scores is not None and reference is not None
        rewards = shape_rewards(scores, rollout.logprobs, reference, rollout.mask, kl_coef=kl_coef)
        penalty = (k1(rollout.logprobs, reference) * rollout.mask).sum(-1)
        return float((rewards.sum(-1) - (scores - kl_coef * penalty)).abs().max())

    return Finding(
        "largest difference between a completion's summed rewards and score - kl_coef * KL",
        max(map(error, rollouts)),
        1e-3,
        "rewards reach tokens that do not count; look at the mask",
    )


def reward_invariance(reward: Reward, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Finding:
    """The first 8 completions alone, together, and, for models of ours, padded on either side.

    Raises RewardError when a score is not finite.
    """
    prompts, completions = prompts[:8], completions[:8]
    together = checked(reward, prompts, completions)
    others = [torch.cat([checked(reward, [p], [c]) for p, c in zip(prompts, completions, strict=True)])]
    if isinstance(reward, LearnedReward | ClassifierReward):
        others.append(checked(replace(reward, padding="left"), prompts, completions))
    half = isinstance(reward, LearnedReward) and reward.role.half
    moved = [(together - other).abs() for other in others]
    return Finding(
        f"{'mean' if half else 'largest'} change of a reward with its batch or padding",
        max(float(change.mean() if half else change.max()) for change in moved),
        reward.role.rounding if isinstance(reward, LearnedReward) else 1e-4,
        "the score of a completion depends on its neighbours; look at pad token, attention mask and reading position",
    )


def _reward_mean(reward: Reward, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Finding:
    scores = shared_scores(reward, prompts, completions)
    error = float(scores.std() / len(scores) ** 0.5)
    return Finding(
        "distance of the mean reward of reference completions from 0, in standard errors",
        abs(float(scores.mean())) / max(error, 1e-12),
        3.0,
        "the reward is not normalised on this reference; kl_coef then has other units",
        warning=True,
    )
