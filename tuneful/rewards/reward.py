"""The reward protocol, and what stands between a reward and the learner: checks and the missing-end penalty."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tuneful.errors import RewardError
from tuneful.records import Completion, Prompt

Reward = Callable[[Sequence[Prompt], Sequence[Completion]], Tensor]
"""(N prompts, N completions) -> float [N]. Any callable will do."""


def checked(reward: Reward, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Tensor:
    """float32 [N] scores, refused when the count is wrong or one is not finite.

    Raises RewardError naming the first offending completion.
    """
    scores = torch.as_tensor(reward(prompts, completions)).detach().float()
    if scores.shape != (len(completions),):
        raise RewardError(
            f"the reward returned shape {tuple(scores.shape)} for {len(completions)} completions; "
            f"it must return one number each, shape ({len(completions)},)"
        )
    bad = (~scores.isfinite()).nonzero().flatten().tolist()
    if bad:
        first = completions[bad[0]]
        raise RewardError(
            f"the reward is {float(scores[bad[0]])} for {len(bad)} of {len(scores)} completions, "
            f'the first being "{first.text[:60]}"; a reward must be finite for every text'
        )
    return scores


def penalise_missing_end(scores: Tensor, completions: Sequence[Completion], penalty: float) -> Tensor:
    """Subtract `penalty` from completions that ran into the length limit without an end token or stop string."""
    unfinished = torch.tensor([c.finish in ("length", "abort") for c in completions], device=scores.device)
    return scores - penalty * unfinished.float()
