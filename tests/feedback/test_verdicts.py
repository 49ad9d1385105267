"""The rule of verdicts, on numbers by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tuneful.feedback.verdicts import verdicts

USUAL = 1.0
RATERS = {
    "careful": (1.0, 0.8, 1.2, "reliable"),
    "as careful": (1.1, 0.9, 1.3, "reliable"),
    "hasty": (0.3, 0.1, 0.4, "noisy"),  # the median of 1.1, 1.0, 0.7, 0.3 is 0.85: the interval lies below its half
    "nearly hasty": (0.7, 0.1, 1.3, "reliable"),  # it may be worth more than that half
    "guesser": (-0.1, -0.5, 0.3, "random"),
    "upside down": (-1.0, -1.2, -0.8, "inverted"),
}


def told(raters: dict[str, tuple[float, float, float, str]], *more: tuple[float, float, float]) -> list[str]:
    numbers = np.array([[*(one[:3] for one in raters.values()), *more]], np.float64).reshape(-1, 3)
    return list(verdicts(*numbers.T, usual=USUAL))


def test_each_verdict() -> None:
    assert told(RATERS) == [one[3] for one in RATERS.values()]


def test_nobody_is_told_nothing() -> None:
    assert told({}) == []


@pytest.mark.parametrize(("guessers", "verdict"), [(2, "unknown"), (3, "random")])
def test_who_is_not_known_is_held_a_guesser_where_most_are(guessers: int, verdict: str) -> None:
    """Its interval holds 0 and half the usual value. Two are of use, above that half: two guessers are no more."""
    two = {name: RATERS[name] for name in ("careful", "as careful")}
    unsure, guess = (0.2, -0.5, 0.9), (0.0, -0.3, 0.3)
    assert told(two, unsure, *[guess] * guessers)[2] == verdict


def test_the_usual_value_tells_a_guesser_and_not_the_crowd() -> None:
    """Where nobody is worth much, half of the crowd's median would call nobody a guesser."""
    nobody = [(0.05, -0.3, 0.4), (-0.05, -0.4, 0.3), (0.02, -0.3, 0.3)]
    assert told({}, *nobody) == ["random"] * 3
