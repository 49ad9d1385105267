from __future__ import annotations

import pytest

from tuneful.feedback.baselines import vote_shares
from tuneful.records import Judgment


def test_votes_by_hand() -> None:
    ranks = {"ann": (1, 2, 3), "ben": (1, 1, 2), "cid": (2, 1, None)}
    rows = [
        Judgment(id=rater, item="i", prompt="p", completions=("a", "b", "c"), rater=rater, ranks=given)
        for rater, given in ranks.items()
    ]
    ab, ac, bc = vote_shares(rows)
    # a against b: a win, a tie, a loss: 1.5 of 3, (1.5 + 1) / (3 + 2)
    assert (ab.first, ab.second, ab.votes_first, ab.votes) == ("a", "b", 1.5, 3)
    assert ab.p == pytest.approx(0.5)
    assert ab.majority is None
    # a against c: 2 of 2, (2 + 1) / (2 + 2)
    assert (ac.p, ac.majority) == (0.75, "a")
    assert (bc.p, bc.majority) == (0.75, "b")
