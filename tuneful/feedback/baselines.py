"""What consensus is compared with in reports: counting votes, every rater alike. Never trained on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tuneful.feedback.votes import tabulate
from tuneful.records import Judgment


@dataclass(frozen=True, slots=True)
class VoteShare:
    """The votes on two completions of one item, `first` before `second` by id; a tie is half a vote for each."""

    item: str
    first: str
    second: str
    votes_first: float
    votes: int

    @property
    def p(self) -> float:
        """(w + 1) / (n + 2), Laplace's rule of succession."""
        return (self.votes_first + 1) / (self.votes + 2)

    @property
    def majority(self) -> str | None:
        """The completion with more votes, None when they are even."""
        lead = 2 * self.votes_first - self.votes
        return None if lead == 0 else self.first if lead > 0 else self.second


def vote_shares(judgments: Iterable[Judgment]) -> list[VoteShare]:
    """The votes on every pair of completions of every item, items by id. Raises DataError as `tabulate` does."""
    votes = tabulate(judgments)
    pairs = votes.pair_votes()
    count = np.bincount(pairs.pair, minlength=pairs.num_pairs)
    won = (count + np.bincount(pairs.pair, pairs.outcome, pairs.num_pairs)) / 2
    named = (
        (item, ids[a], ids[b])
        for block in votes.blocks
        for item, ids in zip(block.items, block.completions, strict=True)
        for a, b in zip(*block.pairs, strict=True)
    )
    shares = [
        VoteShare(*names, votes_first=w, votes=n)
        for names, w, n in zip(named, won.tolist(), count.tolist(), strict=True)
    ]
    return sorted(shares, key=lambda share: share.item)
