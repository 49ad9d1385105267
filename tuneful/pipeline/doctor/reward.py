"""Whether a reward tells answers apart, by what they say and not by how they stand in a batch or how long they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tuneful.algorithms.start_up import reward_invariance
from tuneful.evaluation.reward_accuracy import length_correlation
from tuneful.evaluation.text_measures import num_words
from tuneful.pipeline.doctor.finding import Finding, found, judged
from tuneful.pipeline.doctor.model import ANSWERS
from tuneful.records import Completion, Prompt
from tuneful.rewards.load import load_reward
from tuneful.rewards.reward import checked
from tuneful.rewards.tables import reward_text

NUM_ANSWERS = 64
"""So many answers are scored, some of them several times."""

BY_LENGTH = 0.5
"""A rank correlation with length this far from 0, and not by chance, is worth a word."""


def look_at_reward(reference: str, answers: Sequence[tuple[Prompt, Completion]] = ()) -> Iterator[Finding]:
    """Whether scores are finite, differ, follow length, or depend on the batch or, for reward models, on the padding.

    answers: what to score; without any, a few answers of ours, which say nothing about length.
    """
    reward = load_reward(reward_text(reference, where="--reward"))
    prompts, completions = zip(*(answers[:NUM_ANSWERS] or ANSWERS), strict=True)
    scores = checked(reward, prompts, completions)
    yield Finding("reward", "answers scored", len(completions))
    spread = float(scores.max() - scores.min())
    mend = "" if spread else "a reward that is the same for every answer teaches nothing; look at its training report"
    yield found("reward", "spread of the scores", spread, mend)
    if answers:
        yield from _by_length(scores.tolist(), [num_words(completion.text) for completion in completions])
    yield judged("reward", reward_invariance(reward, prompts, completions))


def _by_length(scores: Sequence[float], lengths: Sequence[int]) -> Iterator[Finding]:
    measured = length_correlation(scores, lengths)
    if measured is None:
        return
    mend = ""
    if abs(measured.mean) >= BY_LENGTH and not measured.low <= 0 <= measured.high:
        direction = "longer" if measured.mean > 0 else "shorter"
        mend = (
            f"a policy can raise it by {direction} answers alone; watch length in evaluations, and weigh a length rule "
            "against it or train it on pairs of like length"
        )
    yield found("reward", "rank correlation of the scores with length", measured.mean, mend)
