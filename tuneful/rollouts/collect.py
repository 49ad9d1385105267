"""One step's experience: sample, score, and record everything the update will read before the first gradient step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tuneful.engines import ranks
from tuneful.engines.protocol import Engine
from tuneful.generation.rollout import Rollout
from tuneful.generation.sampler import Choose
from tuneful.generation.sampling import Sampling
from tuneful.records import Candidates, Completion, Prompt
from tuneful.rewards.reward import Reward, checked, penalise_missing_end


def collect(
    engine: Engine,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    reward: Reward,
    *,
    seed: int,
    missing_eos_penalty: float = 1.0,
    with_values: bool = False,
    with_reference: bool = True,
    choose: Choose | None = None,
) -> Rollout:
    """A scored rollout. Values come out of the decode pass when the value head shares the policy's trunk."""
    rollout = engine.sample(prompts, sampling, seed=seed, values=with_values, choose=choose)
    values = rollout.values
    if with_values and values is None:
        values = engine.score("value", rollout)
    return replace(
        rollout,
        scores=score(rollout, prompts, reward, missing_eos_penalty).to(rollout.mask.device),
        values=values,
        reference_logprobs=engine.score("reference", rollout) if with_reference else None,
    )


def score(rollout: Rollout, prompts: Sequence[Prompt], reward: Reward, missing_eos_penalty: float) -> Tensor:
    """float32 [N]: the checked reward of every completion, less the penalty for those that never ended."""
    asked = [prompts[g] for g in rollout.group.tolist()]
    completions = rollout.as_completions()
    return penalise_missing_end(shared_scores(reward, asked, completions), completions, missing_eos_penalty)


def shared_scores(reward: Reward, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Tensor:
    """float32 [N] checked scores; among several ranks each asks about its share, so that none is asked for twice.

    All completions of one prompt are in one share. Every rank makes the call, and raises what any of them raises.
    """
    if ranks.world_size() == 1:
        return checked(reward, prompts, completions)
    number: dict[Prompt, int] = {}
    units = [number.setdefault(prompt, len(number)) for prompt in prompts]
    own = ranks.share([len(c.text) for c in completions], units)

    def ask() -> tuple[list[int], Tensor]:
        scores = checked(reward, [prompts[i] for i in own], [completions[i] for i in own]) if own else torch.empty(0)
        return own, scores.cpu()

    result = torch.zeros(len(completions))
    for rows, scores in ranks.gather(ask):
        result[rows] = scores
    return result


def candidates_of(prompts: Sequence[Prompt], rollout: Rollout, model: str) -> list[Candidates]:
    """A rollout's completions gathered by prompt, each naming the model that made it."""
    answers: list[list[Completion]] = [[] for _ in prompts]
    for group, completion in zip(rollout.group.tolist(), rollout.as_completions(), strict=True):
        answers[group].append(replace(completion, model=model))
    return [Candidates(prompt, tuple(rows)) for prompt, rows in zip(prompts, answers, strict=True)]
