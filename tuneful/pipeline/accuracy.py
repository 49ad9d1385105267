"""How often a reward, or a language model by its log-probabilities, prefers the answer that people prefer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tuneful.data.batching import TOKENS_PER_PASS
from tuneful.data.templates import pair_ids
from tuneful.engines import ranks
from tuneful.evaluation.reward_accuracy import evaluate_reward
from tuneful.evaluation.text_measures import num_words
from tuneful.models.forward import policy_outputs, refuse_other_logprobs
from tuneful.models.loading import context_length, load_language_model, load_tokenizer
from tuneful.models.roles import Role
from tuneful.records import Comparison, Completion
from tuneful.rewards.learned import LearnedReward
from tuneful.rewards.reward import Reward
from tuneful.rollouts.collect import shared_scores


def reward_accuracy(reward: Reward, held_out: Sequence[Comparison]) -> dict[str, Any]:
    """Accuracy, calibration and length bias of a reward on held-out comparisons (see evaluate_reward).

    A reward model is taken as its head gives it, since its odds are those of the raw scores.
    """
    prompts = [c.prompt for c in held_out]
    read = reward.raw if isinstance(reward, LearnedReward) else reward
    chosen = shared_scores(read, prompts, [Completion(c.chosen) for c in held_out])
    rejected = shared_scores(read, prompts, [Completion(c.rejected) for c in held_out])
    return _report(held_out, chosen, rejected)


def policy_accuracy(
    path: str, held_out: Sequence[Comparison], *, on_progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """The same of log P(answer | prompt) under the language model at `path`: {"summed": …, "per_token": …}.

    Summed is the log-probability of the whole answer, its end token included, which falls with every token; per token
    is their mean. Prompts too long for the context lose their beginning.
    on_progress: told how many answers of how many are done.
    """
    role = Role("policy", load_language_model(path))
    refuse_other_logprobs(role)
    tokenizer = load_tokenizer(path)
    context = context_length(role.model)
    texts = [(c.prompt, text) for c in held_out for text in (c.chosen, c.rejected)]
    rows = [pair_ids(prompt, text, tokenizer, max_tokens=context) for prompt, text in texts]
    summed = completion_logprobs(role, rows, on_progress=on_progress)
    num_tokens = torch.tensor([float(len(completion)) for _, completion in rows])
    return {
        name: _report(held_out, scores[0::2], scores[1::2])
        for name, scores in (("summed", summed), ("per_token", summed / num_tokens))
    }


@torch.no_grad()
def completion_logprobs(
    role: Role, rows: Sequence[tuple[list[int], list[int]]], *, on_progress: Callable[[int, int], None] | None = None
) -> Tensor:
    """float32 [N]: log-probability of each completion given its prompt, from N (prompt ids, completion ids)."""
    summed = torch.zeros(len(rows))
    done = 0
    for batch in ranks.microbatches([len(p) + len(c) for p, c in rows], TOKENS_PER_PASS):
        outputs = policy_outputs(role, [rows[i][0] for i in batch], [rows[i][1] for i in batch])
        assert outputs.logprobs is not None
        summed[batch] = outputs.logprobs.sum(-1).cpu()
        done += len(batch)
        if on_progress is not None:
            on_progress(done, len(rows))
    return ranks.add_up(summed)


def _report(held_out: Sequence[Comparison], chosen: Tensor, rejected: Tensor) -> dict[str, Any]:
    return evaluate_reward(
        chosen.tolist(),
        rejected.tolist(),
        [num_words(c.chosen) for c in held_out],
        [num_words(c.rejected) for c in held_out],
        [c.prompt.id for c in held_out],
    )
