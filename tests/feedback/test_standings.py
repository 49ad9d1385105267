"""How raters stand: who goes with the others, by hand, and planted raters of yes and no under their right verdict."""

from __future__ import annotations

import numpy as np
import pytest

from tests.feedback.rankings import said
from tuneful.feedback.consensus import consensus
from tuneful.feedback.dawid_skene import binary_consensus
from tuneful.feedback.points import answer_points, ranking_points
from tuneful.feedback.standings import Standing, standings_of_answers, standings_of_rankings
from tuneful.records import Judgment


def test_who_goes_with_the_others_together() -> None:
    """Ann and Bo say first, Cy second, on each of two items. The others of Cy say first: 0 of 2. Ann's others disagree,
    and the one who is trusted more decides, which is Bo: 2 of 2."""
    rows = [said(r, item, *((2, 1) if r == "cy" else (1, 2))) for item in ("x", "y") for r in ("ann", "bo", "cy")]
    found = {one.rater: one for one in standings_of_rankings(ranking_points(rows), consensus(rows), "preference")}
    assert found["bo"].reliability == pytest.approx(found["ann"].reliability, rel=1e-6)
    follows = {rater: (one.follows.value, one.follows.of) for rater, one in found.items() if one.follows}
    assert follows == {"ann": (1, 2), "bo": (1, 2), "cy": (0, 2)}
    assert {rater: one.agreement for rater, one in found.items()} == {"ann": 0.5, "bo": 0.5, "cy": 0}


def test_ties_are_counted_and_go_half_with_the_others() -> None:
    rows = [said(r, "x", *((1, 1) if r == "cy" else (1, 2))) for r in ("ann", "bo", "cy")]
    found = {one.rater: one for one in standings_of_rankings(ranking_points(rows), consensus(rows), "preference")}
    assert (found["cy"].ties, found["ann"].ties) == (1, 0)
    assert found["cy"].follows is not None
    assert found["cy"].follows.value == 0.5


def answers(right: dict[str, float], *, num_items: int, per_item: int, seed: int = 0) -> list[Judgment]:
    """Yes or no of raters who are right with the probability given, a third of the items being yes."""
    rng = np.random.default_rng(seed)
    names, rows = list(right), []
    for n in range(num_items):
        yes = rng.random() < 1 / 3
        for who in rng.permutation(len(names))[:per_item]:
            correct = rng.random() < right[names[who]]
            rows.append(said(names[who], f"i{n}", kind="binary", values={"toxic": int(yes == correct)}))
    return rows


def standings(rows: list[Judgment]) -> dict[str, Standing]:
    return {
        one.rater: one
        for one in standings_of_answers(answer_points(rows, "toxic"), binary_consensus(rows, "toxic"), "toxic")
    }


def test_planted_raters_of_yes_and_no_get_their_verdict() -> None:
    careful = {f"good {n}": 0.9 for n in range(8)}
    found = standings(answers(careful | {"turned": 0.1, "guess": 0.5}, num_items=800, per_item=4))
    assert found["turned"].verdict == "inverted"
    assert found["guess"].verdict == "random"
    assert {found[name].verdict for name in careful} == {"reliable"}
    assert found["turned"].interval is not None and found["turned"].interval[1] < 0
    assert found["turned"].yes_when_yes is not None and found["turned"].yes_when_yes < 0.3


def test_where_all_guess_all_are_called_guessers() -> None:
    """As rankings have it: what a careful person is worth is the measure, not what this crowd is."""
    found = standings(answers({f"guess {n}": 0.5 for n in range(6)}, num_items=800, per_item=4))
    assert {one.verdict for one in found.values()} == {"random"}


def test_who_always_says_yes_is_of_no_use_and_not_upside_down() -> None:
    rows = answers({f"good {n}": 0.9 for n in range(6)}, num_items=300, per_item=3)
    rows += [said("yes", f"i{n}", kind="binary", values={"toxic": 1}) for n in range(300)]
    found = standings(rows)["yes"]
    assert found.verdict == "random"
    assert found.reliability == pytest.approx(0, abs=0.02)


def test_nothing_is_said_of_a_handful_of_answers() -> None:
    found = standings(answers({"ann": 1, "bo": 1, "cy": 0}, num_items=10, per_item=3))
    assert {one.verdict for one in found.values()} == {"unknown"}
    assert {one.reliability for one in found.values()} == {None}
