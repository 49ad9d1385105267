"""How much of a known answer somebody got right, counted by hand."""

from __future__ import annotations

import pytest

from tuneful.feedback.gold import share_right


@pytest.mark.parametrize(
    ("said", "share"),
    [
        ((1, 2, 3), 1.0),
        ((3, 2, 1), 0.0),
        ((2, 1, 3), 2 / 3),  # a-b wrong, a-c and b-c right
        ((1, 1, 2), 2.5 / 3),  # a-b tied: half
        ((1, None, 2), 1 / 3),  # only a-c was said
        ((), 0.0),
        ((10, 20, 30), 1.0),  # ranks are an order, not distances
    ],
    ids=str,
)
def test_of_a_ranking(said: tuple[int | None, ...], share: float) -> None:
    assert share_right({"ranks": [1, 2, 3]}, said, {}) == pytest.approx(share)


def test_pairs_that_gold_ties_or_leaves_out_do_not_count() -> None:
    assert share_right({"ranks": [1, 1, 2, None]}, (1, 3, 2, 4), {}) == pytest.approx(1 / 2)  # a-c right, b-c wrong


def test_of_values() -> None:
    assert share_right({"values": {"toxic": 1, "rude": 0}}, (), {"toxic": 1, "rude": 1}) == 0.5
    assert share_right({"values": {"toxic": 1}}, (), {}) == 0.0


def test_what_says_nothing_cannot_be_got_wrong() -> None:
    assert share_right({"ranks": [1, 1]}, (2, 1), {}) == 1.0
