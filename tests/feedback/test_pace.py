"""How fast people judge, by hand."""

from __future__ import annotations

from tests.feedback.rankings import said
from tuneful.feedback.pace import RECENT, paces

PROMPTS = {f"prompt of {item}": "one two" for item in "abc"}
TEXTS = {f"{item}-{n}": "three four five six" for item in "abc" for n in range(2)}


def test_medians_of_seconds_and_words() -> None:
    """Ten words of prompt and answers in 60, 30 and 20 seconds: 10, 20 and 30 words a minute."""
    rows = [said("ann", item, 1, 2, seconds=seconds) for item, seconds in zip("abc", (60, 30, 20), strict=True)]
    rows.append(said("bo", "a", 1, 2))
    together, by_rater = paces(rows, PROMPTS, TEXTS)
    assert (together.seconds, together.words_per_minute, together.recent) == (30, 20, None)
    assert by_rater["ann"] == together
    assert by_rater["bo"].seconds is None
    assert by_rater["bo"].words_per_minute is None


def test_lately_is_the_last_of_many() -> None:
    slow = [said("ann", "a", 1, 2, seconds=60) for _ in range(RECENT)]
    fast = [said("ann", "a", 1, 2, seconds=6) for _ in range(RECENT)]
    found, _ = paces(slow + fast, PROMPTS, TEXTS)
    assert (found.words_per_minute, found.recent) == (55, 100)
