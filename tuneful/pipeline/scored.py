"""Stored answers with a score each, which learners by value read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tuneful.algorithms.kto import unpair
from tuneful.data.templates import pair_ids
from tuneful.generation.rollout import Scored
from tuneful.pipeline.context import Context
from tuneful.pipeline.rows import training_comparisons, training_completions
from tuneful.rewards.reward import Reward, penalise_missing_end
from tuneful.rollouts.collect import shared_scores


def scored_completions(
    context: Context,
    source: str,
    reward: Reward,
    tokenizer: Any,
    *,
    max_tokens: int,
    missing_eos_penalty: float = 0.0,
    stage: str,
) -> list[Scored]:
    """Completions of a stage or a file, as `reward` scores them less the penalty of those that were cut off.

    max_tokens: of prompt and completion; longer prompts lose their beginning.
    """
    found = training_completions(context, source, stage=stage)
    prompts, completions = [prompt for prompt, _ in found], [completion for _, completion in found]
    scores = penalise_missing_end(shared_scores(reward, prompts, completions), completions, missing_eos_penalty)
    return [
        Scored(*pair_ids(prompt, completion.text, tokenizer, max_tokens=max_tokens, ended=completion.ended), score)
        for prompt, completion, score in zip(prompts, completions, scores.tolist(), strict=True)
    ]


def scored_comparisons(context: Context, source: str, tokenizer: Any, *, max_tokens: int, stage: str) -> list[Scored]:
    """The answers of comparisons, each once, with p or 1 - p as score, or their mean; weighed as `unpair` does."""
    return [
        Scored(*pair_ids(one.prompt, one.completion, tokenizer, max_tokens=max_tokens), one.goodness, one.weight)
        for one in unpair(training_comparisons(context, source, stage=stage))
    ]


def standardised(scored: Sequence[Scored]) -> list[Scored]:
    """With scores of mean 0 and standard deviation 1, by weight; where all are equal, of 0."""
    scores = torch.tensor([one.score for one in scored])
    weights = torch.tensor([one.weight for one in scored])
    scores = scores - (weights * scores).sum() / weights.sum()
    spread = float(((weights * scores.square()).sum() / weights.sum()).sqrt())
    scores = scores / (spread if spread > 0 else 1.0)
    return [one._replace(score=score) for one, score in zip(scored, scores.tolist(), strict=True)]
