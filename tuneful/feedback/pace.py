"""How fast people judge: seconds for a judgment, and words read in a minute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from tuneful.records import Judgment

RECENT: Final = 20
"""Judgments whose pace is set beside that of all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Medians over the judgments whose time is known; None where none is. words_per_minute: of the prompt and the
    answers together; adults read about 240. recent: the same of the last judgments."""

    seconds: float | None
    words_per_minute: float | None
    recent: float | None


def paces(
    said: Sequence[Judgment], prompts: Mapping[str, str], completions: Mapping[str, str]
) -> tuple[Pace, dict[str, Pace]]:
    """Of all judgments together, and of each rater's. said: oldest first; texts of prompts and completions by id."""
    words = {id_: len(text.split()) for texts in (prompts, completions) for id_, text in texts.items()}
    by_rater: dict[str, list[Judgment]] = {}
    for one in said:
        by_rater.setdefault(one.rater, []).append(one)
    return _pace(said, words), {rater: _pace(about, words) for rater, about in by_rater.items()}


def _pace(said: Sequence[Judgment], words: Mapping[str, int]) -> Pace:
    timed = [(one, one.seconds) for one in said if one.seconds]
    read = [sum(words.get(id_, 0) for id_ in (one.prompt, *one.completions)) / seconds * 60 for one, seconds in timed]
    return Pace(
        seconds=_median([seconds for _, seconds in timed]),
        words_per_minute=_median(read),
        recent=_median(read[-RECENT:]) if len(read) > RECENT else None,
    )


def _median(values: Sequence[float]) -> float | None:
    return float(median(values)) if values else None
