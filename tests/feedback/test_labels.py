"""Good and bad answers of what raters said of each by itself: who is believed, what is even, and whose word is last."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.feedback.rankings import said
from tuneful.errors import DataError
from tuneful.feedback.labels import good_and_bad, labels
from tuneful.feedback.settling import Decision
from tuneful.records import Candidates, Completion, Judgment, Prompt


def yes(rater: str, item: str, value: float) -> Judgment:
    """A word by the criterion "preference" on the one answer of an item."""
    return said(rater, item, kind="binary", values={"preference": value})


def decision(item: str, value: float) -> Decision:
    return Decision(
        id=f"d-{item}",
        item=item,
        prompt=item,
        completions=(f"{item}-0",),
        criterion="preference",
        rater="lead",
        values={"preference": value},
    )


def test_raters_who_are_upside_down_are_read_the_right_way_up() -> None:
    """400 items, three of ten raters each, all right in 85 %, three of them the other way round. A majority of three
    is right on 70 % of such items."""
    rng = np.random.default_rng(1)
    truth = rng.integers(2, size=400)
    words = [
        yes(f"r{who}", f"{n:03}", int(truth[n] == ((rng.random() < 0.85) == (who > 2))))
        for n in range(400)
        for who in rng.permutation(10)[:3]
    ]
    found = labels(words)
    assert [one.item for one in found] == [f"{n:03}" for n in range(400)]
    votes = np.array([np.mean([one.values["preference"] for one in label.judgments]) for label in found])
    assert ((votes > 0.5) == truth).mean() < 0.75
    assert (np.array([one.is_good for one in found]) == truth).mean() > 0.9


def test_one_against_one_is_told_by_who_is_right_elsewhere() -> None:
    """Ben says the contrary of four others on twenty items; on the last one only he and Ann were asked."""
    words = [
        yes(who, f"{n:02}", int((n % 2 == 1) != (who == "ben"))) for n in range(20) for who in ("ann", *"cdef", "ben")
    ]
    found = labels([*words, yes("ann", "last", 1), yes("ben", "last", 0)])
    (last,) = [one for one in found if one.item == "last"]
    assert last.p > 0.9


def test_the_lead_s_word_is_the_last() -> None:
    """Also of an item that was only flagged; by a criterion that nobody was asked it is none."""
    words = [yes(who, item, 1) for who in "ab" for item in "xy"]
    flagged = replace(yes("a", "z", 1), values={}, flags={"z-0": ("unsafe",)})
    other = replace(decision("y", 0), criterion="honest", values={"honest": 0})
    found = labels([*words, flagged], [decision("x", 0), decision("z", 1), other])
    assert [(one.item, one.p, one.decided) for one in found if one.decided] == [("x", 0, True), ("z", 1, True)]
    assert [(one.item, one.is_good) for one in found if not one.decided] == [("y", True)]
    assert [len(one.judgments) for one in found] == [2, 2, 0]


def test_what_says_neither_yes_nor_no_of_its_criterion_is_no_word() -> None:
    first = yes("a", "x", 0)
    last = replace(yes("a", "x", 1), id="later", replaces=first.id)
    others = [yes("b", "x", 0.7), replace(yes("c", "x", 0), criterion="honest"), said("d", "x", 1, 2)]
    (only,) = labels([first, last, *others])
    assert (only.is_good, [one.id for one in only.judgments]) == (True, ["later"])
    assert labels([]) == []


def test_labels_with_their_texts() -> None:
    """What is even is left out; a text that nobody gave is named."""
    found = labels(
        [yes("a", "x", 1), yes("b", "x", 1), yes("a", "y", 0), yes("b", "y", 0), yes("a", "z", 1), yes("b", "z", 0)]
    )
    assert [one.is_even for one in found] == [False, False, True]
    offered = [Candidates(Prompt(item), (Completion(f"text {item}", id=f"{item}-0"),)) for item in "xyz"]
    assert [(one.prompt.text, one.completion, one.label) for one in good_and_bad(found, offered)] == [
        ("x", "text x", True),
        ("y", "text y", False),
    ]
    with pytest.raises(DataError, match='item "y": completion "y-0" has no text'):
        good_and_bad(found, offered[:1])
