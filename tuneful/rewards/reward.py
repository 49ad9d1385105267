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
    """float32 [N] scores, refused when they are no numbers, the count is wrong or one is not finite.

    Raises RewardError saying what was returned, or naming the first offending completion.
    """
    returned = reward(prompts, completions)
    mend = f"it must return one number each, shape ({len(completions)},)"
    try:
        scores = torch.as_tensor(returned).detach().float()
    except (TypeError, ValueError, RuntimeError) as error:
        shown = " ".join(repr(returned).split())[:60]
        raise RewardError(f"the reward returned {shown} for {len(completions)} completions; {mend}") from error
    if scores.shape != (len(completions),):
        raise RewardError(f"the reward returned shape {tuple(scores.shape)} for {len(completions)} completions; {mend}")
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
    unfinished = torch.tensor([not c.ended for c in completions], device=scores.device)
    return scores - penalty * unfinished.float()
