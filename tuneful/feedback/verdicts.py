"""Verdicts on raters: by which rule a number that says how far somebody is worth following becomes a word.

The number is 0 for guessing and below 0 for a scale read upside down: the slope of a ranking's consensus, or how much
more often somebody says yes where the others tell yes than where they tell no.
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np

from tuneful.feedback.votes import Floats

Verdict = Literal["reliable", "unknown", "noisy", "random", "inverted"]

LEVEL: Final = 0.999
"""Level of the intervals. A verdict accuses a person and is drawn anew at each fit, so chance gets little room."""


def verdicts(value: Floats, low: Floats, high: Floats, *, usual: float) -> list[Verdict]:
    """One for each rater [R]. Inverted: interval below 0. Random: it holds 0. Noisy: above 0, but below half the median
    of positive values.

    usual: the value of a person who takes care. Unknown: the interval holds 0 and half of the usual value as well, as
    after a handful of judgments; but random, when more raters are shown to guess than seem to be of use. To be shown to
    be of use takes longer: held against those alone, two who guess would make a guesser of everybody, and every p one
    half, while labels are few.
    """
    bar = float(np.median(value[value > 0])) / 2 if (value > 0).any() else 0.0
    guesses = (low <= 0) & (high >= 0) & (high < usual / 2)
    useful = value > usual / 2
    undecided: Verdict = "random" if guesses.sum() > useful.sum() else "unknown"

    def verdict(n: int) -> Verdict:
        if high[n] < 0:
            return "inverted"
        if low[n] <= 0:
            return "random" if guesses[n] else undecided
        return "noisy" if high[n] < bar else "reliable"

    return [verdict(n) for n in range(len(value))]
