"""Prompts that a model may not learn from because it is to be judged by others that say the same.

Splits by the first user turn keep equal prompts together, not near-equal ones. The rule is GPT-3's (Brown et al. 2020,
arXiv 2005.14165, appendix C): two texts overlap when they share a run of 13 words, case and punctuation taken away; so
do two that are equal then, however short.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from tuneful.records import Prompt

RUN = 13
"""Words in a row that two different texts seldom share by chance."""

_WORD = re.compile(r"\w+")
_POWERS = np.cumprod(np.full(RUN, 6364136223846793005, dtype=np.uint64))


class Seen:
    """Prompts to be kept apart from: what they say, and every run of words in it."""

    def __init__(self, prompts: Iterable[Prompt]) -> None:
        said = [words_of(first_turn) for first_turn in {prompt.first_turn for prompt in prompts}]
        self._whole = {" ".join(words) for words in said if words}  # signs alone say too little to be the same
        self._runs = {run for words in said for run in _runs(words)}

    def overlaps(self, prompt: Prompt) -> bool:
        """Whether the first user turn of `prompt` says the same as one of these, or shares a run of words with one."""
        words = words_of(prompt.first_turn)
        return " ".join(words) in self._whole or not self._runs.isdisjoint(_runs(words))


def overlapping(prompts: Sequence[Prompt], others: Iterable[Prompt]) -> list[int]:
    """Positions of those `prompts` that overlap with any of `others`."""
    seen = Seen(others)
    return [i for i, prompt in enumerate(prompts) if seen.overlaps(prompt)]


def words_of(text: str) -> list[str]:
    """The words of a text without case and punctuation; where a script has no blanks, what stands between its signs."""
    return _WORD.findall(text.casefold())


def _runs(words: Sequence[str]) -> list[int]:
    """A number for every run of words, the same for the same words, for others with probability 2^-64.

    A number is small and quick to find beside a tuple of words, of which a hundred thousand posts have millions.
    """
    if len(words) < RUN:
        return []
    numbers = np.fromiter(map(hash, words), np.int64, len(words)).view(np.uint64)
    runs: list[int] = np.convolve(numbers, _POWERS, "valid").tolist()
    return runs
