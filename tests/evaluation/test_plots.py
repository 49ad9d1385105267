from __future__ import annotations

import math
from xml.etree import ElementTree

from tuneful.evaluation.plots import MARK, Series, learners


def numbers(svg: str) -> dict[str, tuple[float, float]]:
    """Where each learner's number stands, by what is written there; the axes' are of another colour."""
    texts = [text for text in ElementTree.fromstring(svg).iter("text") if "--after" in text.get("style", "")]
    return {str(text.text): (float(text.get("x", "")), float(text.get("y", ""))) for text in texts}


def drawing(*ends: tuple[float, float]) -> str:
    return learners([Series(((0.0, 0.0), end), end) for end in ends], start=0.0, over="nats", name="of these")


def test_learners_that_end_together_can_be_told_apart() -> None:
    found = numbers(drawing((2.0, 1.0), (2.0, 1.0), (2.01, 1.0), (1.0, 0.5)))
    places = [found[name] for name in ("1", "2", "3", "4")]
    nearest = min(math.dist(a, b) for k, a in enumerate(places) for b in places[:k])
    assert nearest > 0.9 * MARK


def test_who_ends_far_away_stands_at_the_right_and_says_where() -> None:
    """The other two keep the width between them: on an axis to 64 they would lie within 3 of its 280 points."""
    found = numbers(drawing((2.0, 1.0), (2.5, 0.9), (64.0, 0.1)))
    assert "3: 64 →" in found
    assert 20 < found["2"][0] - found["1"][0] < 200
    assert found["3: 64 →"][0] > found["2"][0]


def test_who_spent_nothing_does_not_set_the_scale() -> None:
    """Of four learners three draw no answers: the fourth is not far away. Where none does, all stand at the left."""
    found = numbers(drawing((0.0, 0.2), (0.0, 0.5), (0.0, 0.9), (7040.0, 1.0)))
    assert found.keys() == {"1", "2", "3", "4"}
    assert found["4"][0] > found["1"][0] + 100
    assert numbers(drawing((0.0, 0.2), (0.0, 0.9))).keys() == {"1", "2"}
