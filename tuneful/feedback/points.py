"""What judgments say, point by point: two answers put in order, or a question answered with yes or no.

Agreement is counted in points, so that rankings and 0/1 judgments are looked at in one way.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tuneful.feedback.votes import Floats, Ints, tabulate
from tuneful.records import Judgment


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """R words on points, by judgments of W raters about I items with O options between them.

    judgment, rater, item, point: int [R], numbered from 0. outcome: int [R], +1 for the `first` option, -1 for the
    `second`, 0 for a tie. first, second: int [R], options numbered over all items; option_item: int [O].
    """

    judgments: tuple[Judgment, ...]
    raters: tuple[str, ...]
    items: tuple[str, ...]
    judgment: Ints
    rater: Ints
    item: Ints
    point: Ints
    first: Ints
    second: Ints
    outcome: Ints
    option_item: Ints

    def others(self) -> tuple[Floats, Floats]:
        """How many other words there are on the point of each word [R], and how many of these are alike [R], a tie on
        either side counting half."""
        others = np.asarray(np.bincount(self.point)[self.point] - 1, np.float64)
        order = np.bincount(self.point, self.outcome)[self.point] - self.outcome
        return others, (others + self.outcome * order) / 2


def ranking_points(judgments: Iterable[Judgment]) -> Points:
    """Every pair that a ranking or comparison orders, or ties. Raises DataError as `votes.tabulate` does."""
    votes = tabulate(judgments)
    home = {item: n for n, block in enumerate(votes.blocks) for item in block.items}
    rows: list[list[int]] = [[] for _ in votes.blocks]
    for number, judgment in enumerate(votes.judgments):
        rows[home[judgment.item]].append(number)
    parts: list[dict[str, Ints]] = []
    items: list[str] = []
    option_item: list[Ints] = []
    num_points = num_options = 0
    for block, here in zip(votes.blocks, rows, strict=True):
        first, second = block.pairs
        size = block.ranks.shape[1]
        a, b = block.ranks[:, first], block.ranks[:, second]
        row, pair = np.nonzero((a > 0) & (b > 0))
        item = block.item[row]
        parts.append(
            {
                "judgment": np.array(here, np.int64)[row],
                "rater": block.rater[row],
                "item": len(items) + item,
                "point": num_points + item * len(first) + pair,
                "first": num_options + item * size + first[pair],
                "second": num_options + item * size + second[pair],
                "outcome": np.sign(b - a)[row, pair],
            }
        )
        option_item.append(np.repeat(len(items) + np.arange(len(block.items)), size))
        num_points += len(block.items) * len(first)
        num_options += len(block.items) * size
        items += block.items
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Points(votes.judgments, votes.raters, tuple(items), option_item=np.concatenate(option_item), **arrays)


def answer_points(judgments: Iterable[Judgment], question: str) -> Points:
    """Every 0/1 judgment that answers `question`: one point to an item, yes its first option and no its second.

    Judgments are given in their last revision, as the store gives them, at least one of which answers.
    """
    answered = sorted((j for j in judgments if question in j.values), key=lambda j: (j.item, j.id))
    raters, items = sorted({j.rater for j in answered}), sorted({j.item for j in answered})
    rater_number = {name: n for n, name in enumerate(raters)}
    item_number = {name: n for n, name in enumerate(items)}
    item = np.array([item_number[j.item] for j in answered], np.int64)
    return Points(
        judgments=tuple(answered),
        raters=tuple(raters),
        items=tuple(items),
        judgment=np.arange(len(answered)),
        rater=np.array([rater_number[j.rater] for j in answered], np.int64),
        item=item,
        point=item,
        first=2 * item,
        second=2 * item + 1,
        outcome=np.array([1 if j.values[question] else -1 for j in answered], np.int64),
        option_item=np.repeat(np.arange(len(items)), 2),
    )
