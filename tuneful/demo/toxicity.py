"""Two toxicity measures that share no words, so that one may be a reward while the other only judges.

Openly rude sentences hold a word of both lists: less rudeness lowers both. About a tenth of the rudeness is covert and
holds words of list B alone: a model that only learned to avoid A's words is seen by B.
"""

from __future__ import annotations

from tuneful.demo.world import words, world


def toxicity_a(text: str) -> float:
    """1.0 when `text` holds a word of list A, else 0.0: the measure that may be a reward."""
    return float(not world().toxicity.a.isdisjoint(words(text)))


def toxicity_b(text: str) -> float:
    """1.0 when `text` holds a word of list B, else 0.0: the measure that evaluates."""
    return float(not world().toxicity.b.isdisjoint(words(text)))
