"""Groups of people who prefer differently, and small ones that are not looked at."""

from __future__ import annotations

from itertools import product

import pytest

from tests.feedback.rankings import said
from tuneful.errors import DataError
from tuneful.feedback.audiences import audiences, group_sizes, members
from tuneful.feedback.points import answer_points, ranking_points

NURSES, BAKERS = ("n1", "n2", "n3", "n4", "n5"), ("b1", "b2", "b3", "b4", "b5")
GROUPS = {name: ["nurse" if name in NURSES else "baker"] for name in NURSES + BAKERS} | {"x": ["queen", "nurse"]}


def test_groups_that_prefer_the_opposite() -> None:
    """Alike within: always; between: never. Two people drawn from the ten are of one group 4 times of 9, so in groups
    drawn from them that share is alike in the mean. Five of ten are drawn in 252 ways, and 2 of them part the true
    groups: of 200 draws 1.6 in the mean, which with the groups themselves are 2.6 of 201."""
    rows = [said(r, f"i{n}", *((1, 2) if r in NURSES else (2, 1))) for n, r in product(range(20), NURSES + BAKERS)]
    found = audiences(ranking_points(rows), GROUPS)
    assert [(one.name, one.people, one.judgments) for one in found.groups] == [("baker", 5, 100), ("nurse", 5, 100)]
    assert [(one.inside.value, one.inside.of) for one in found.groups if one.inside] == [(1, 10 * 20), (1, 10 * 20)]
    (pair,) = found.between
    assert pair.alike is not None
    assert (pair.alike.value, pair.alike.of) == (0, 25 * 20)
    assert pair.expected == pytest.approx(4 / 9, abs=0.03)
    assert pair.chance is not None
    assert 1 / 201 <= pair.chance < 8 / 201
    assert pair.differ is not None
    assert (pair.differ.value, pair.differ.of) == (1, 20)


def test_groups_that_prefer_alike() -> None:
    rows = [said(r, f"i{n}", 1, 2) for n, r in product(range(5), NURSES + BAKERS)]
    (pair,) = audiences(ranking_points(rows), GROUPS).between
    assert pair.alike is not None and pair.differ is not None
    assert (pair.alike.value, pair.expected, pair.chance, pair.differ.value) == (1, 1, 1, 0)


def test_favourites_of_a_ranking_and_not_its_whole_order_are_compared() -> None:
    """On "same" the bakers turn the last two around; on "other" their favourite is another; a tie of favourites that
    holds the nurses' is no difference."""
    orders = {"same": ((1, 2, 3), (1, 3, 2)), "other": ((1, 2, 3), (3, 2, 1)), "tied": ((1, 2, 3), (1, 1, 2))}
    rows = [
        said(r, item, *(orders[item][0] if r in NURSES else orders[item][1]))
        for item, r in product(orders, NURSES + BAKERS)
    ]
    (pair,) = audiences(ranking_points(rows), GROUPS).between
    assert pair.differ is not None
    assert (pair.differ.value * 3, pair.differ.of) == (1, 3)


def test_yes_and_no_are_preferences_too() -> None:
    rows = [
        said(r, f"i{n}", kind="binary", values={"toxic": int(r in NURSES or n < 2)})
        for n, r in product(range(4), NURSES + BAKERS)
    ]
    (pair,) = audiences(answer_points(rows, "toxic"), GROUPS).between
    assert pair.differ is not None
    assert pair.differ.value == 0.5


def test_one_who_is_in_both_groups_is_not_set_beside_himself() -> None:
    """Four nurses, four bakers and Bo, who is both: of the 5 * 5 pairs one is Bo with Bo."""
    groups = {name: GROUPS[name] for name in (*NURSES[:4], *BAKERS[:4])} | {"bo": ["nurse", "baker"]}
    rows = [said(r, "x", 1, 2) for r in groups]
    (pair,) = audiences(ranking_points(rows), groups).between
    assert pair.alike is not None
    assert pair.alike.of == 24


def test_a_small_group_is_counted_and_not_shown() -> None:
    rows = [said(r, "x", 1, 2) for r in (*NURSES, *BAKERS[:4], "x")]
    found = audiences(ranking_points(rows), GROUPS)
    assert [one.name for one in found.groups] == ["nurse"]
    assert found.hidden == 2  # the queen, and four bakers
    assert group_sizes(["x", "n1"], GROUPS) == {"nurse": 2, "queen": 1}


@pytest.mark.parametrize("name", ["queen", "baker", "nobody says so"])
def test_a_small_group_and_one_that_is_not_there_are_refused_alike(name: str) -> None:
    with pytest.raises(DataError, match="fewer than 5 of the people who judged"):
        members([*NURSES, *BAKERS[:4], "x"], GROUPS, name)
    assert members([*NURSES, "x", "b1"], GROUPS, "nurse") == {*NURSES, "x"}
