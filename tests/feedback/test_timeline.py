"""Agreement over time: planted changes appear in the windows in which they happened."""

from __future__ import annotations

from tests.feedback.rankings import said
from tuneful.feedback.points import ranking_points
from tuneful.feedback.timeline import MOST_WINDOWS, timeline


def two_raters(num_items: int, agree_before: int) -> list:  # type: ignore[type-arg]
    """Ann and Bo judge an item together every two seconds, and agree on those before `agree_before`."""
    return [
        said(
            rater, f"{n:04}", *((1, 2) if rater == "ann" or n < agree_before else (2, 1)), at=2.0 * n + (rater == "bo")
        )
        for n in range(num_items)
        for rater in ("ann", "bo")
    ]


def test_agreement_that_breaks_off_does_so_in_its_window() -> None:
    found = timeline(ranking_points(two_raters(50, 25)), [(1, -5.0), (2, 49.5), (3, 500.0)])
    assert [one.judgments for one in found.windows] == [25, 25, 25, 25]
    shares = [one.agreement for one in found.windows]
    assert [share and share.value for share in shares] == [1, 1, 0, 0]
    assert all(share is not None and share.low < share.high for share in shares)
    assert (found.windows[0].first, found.windows[-1].last) == (0, 99)
    assert [(mark.version, mark.after) for mark in found.marks] == [(2, 50), (3, 100)]


def test_few_judgments_are_one_window_and_many_a_bounded_number() -> None:
    assert len(timeline(ranking_points(two_raters(3, 3)), []).windows) == 1
    many = timeline(ranking_points(two_raters(400, 400)), []).windows
    assert len(many) == MOST_WINDOWS
    assert {one.judgments for one in many} == {40}


def test_who_judged_alone_agreed_with_nobody() -> None:
    (window,) = timeline(ranking_points([said("ann", "x", 1, 2)]), []).windows
    assert window.agreement is None
