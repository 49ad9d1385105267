"""Rewards that are rules: counts of words, patterns, word lists."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import torch
from torch import Tensor

from tuneful.errors import ConfigError, RewardError
from tuneful.records import Completion, Prompt
from tuneful.rewards.reward import Reward
from tuneful.settings import require_at_least


def shorter(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Tensor:
    """Minus the number of words."""
    return -torch.tensor([float(len(c.text.split())) for c in completions])


def longer(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Tensor:
    """The number of words."""
    return -shorter(prompts, completions)


RULES: dict[str, Reward] = {"shorter": shorter, "longer": longer}
"""Rewards a recipe can name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LengthRule:
    """Minus one for each word away from a target, or beyond a budget."""

    rule: Literal["length"]
    """Says which rule this is."""
    target: int | None = None
    """Words that an answer should have; one for each that is missing or too much is taken off."""
    budget: int | None = None
    """Words that are free, in place of `target`; one for each beyond them is taken off."""

    def __post_init__(self) -> None:
        if (self.target is None) == (self.budget is None):
            raise ConfigError("length: say either target or budget, a number of words")
        require_at_least(0, self, "length: ", "target", "budget")

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Tensor:
        """float32 [N], at most 0."""
        words = longer(prompts, completions)
        if self.target is not None:
            return -(words - self.target).abs()
        assert self.budget is not None
        return -(words - self.budget).clamp_min(0)


@dataclass(frozen=True, kw_only=True, slots=True)
class FormatRule:
    """1 for an answer that a pattern fits, else 0."""

    rule: Literal["format"]
    """Says which rule this is."""
    pattern: str
    """A regular expression of Python's; `(?s)` before it lets a dot stand for a new line too."""
    anywhere: bool = False
    """The pattern need only fit a part of the answer; without it, the whole."""

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ConfigError(
                f"format: pattern {self.pattern!r} is no regular expression: {error}; "
                "put a backslash before a sign that stands for itself"
            ) from None

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Tensor:
        """float32 [N] of 0 and 1."""
        pattern = re.compile(self.pattern)
        fits = pattern.search if self.anywhere else pattern.fullmatch
        return torch.tensor([float(fits(c.text) is not None) for c in completions])


@dataclass(frozen=True, kw_only=True, slots=True)
class WordsRule:
    """How much of an answer is in a list of words or phrases, whatever their case."""

    rule: Literal["words"]
    """Says which rule this is."""
    words: tuple[str, ...] = ()
    """The list; a phrase of several words counts as one."""
    file: Annotated[str | None, "data", "words"] = None
    """A text file with one word or phrase a line, in place of `words`; lines that begin with # are passed over."""
    measure: Literal["share", "count", "any"] = "share"
    """How often one of them occurs for each word of the answer, how often in all, or 1 where any occurs and else 0."""

    def __post_init__(self) -> None:
        if bool(self.words) == (self.file is not None):
            raise ConfigError("words: give either words = [...] or file")
        if not all(word.strip() for word in self.words):
            raise ConfigError("words: one of the words is empty; it would be found everywhere")

    def read(self) -> WordsRule:
        """The same rule with the words of its file, which must be read before the rule is used."""
        return self if self.file is None else replace(self, words=read_words(self.file), file=None)

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Tensor:
        """float32 [N], at least 0.

        Raises RewardError while the words are still in their file: a rule without words would count gaps.
        """
        if self.file is not None:
            raise RewardError(f"{self.file}: not read yet; score with load_reward(rule), or rule.read()")
        listed = _pattern(self.words)
        found = torch.tensor([float(len(listed.findall(c.text.casefold()))) for c in completions])
        if self.measure == "count":
            return found
        if self.measure == "any":
            return (found > 0).float()
        return found / longer(prompts, completions).clamp_min(1)


def read_words(file: str) -> tuple[str, ...]:
    """The words and phrases of a file, one a line.

    Raises RewardError when it cannot be read or holds none.
    """
    try:
        lines = Path(file).expanduser().read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise RewardError(f"{file}: cannot be read: {error.strerror or error}; give a text file of words") from None
    except UnicodeDecodeError as error:
        raise RewardError(f"{file}: not UTF-8 at byte {error.start + 1}; save the word list as UTF-8") from None
    words = tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    if not words:
        raise RewardError(f"{file}: holds no words; write one a line")
    return words


@cache
def _pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    """Finds the words, the longest first, where no letter or digit stands beside them."""
    phrases = sorted({word.casefold() for word in words}, key=len, reverse=True)
    choices = "|".join(r"\s+".join(map(re.escape, phrase.split())) for phrase in phrases)
    return re.compile(rf"(?<!\w)(?:{choices})(?!\w)")
