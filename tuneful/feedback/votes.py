"""Judgments as arrays: which rater put which completions of which item in which order.

A model that was asked about each pair says how sure it is of it (feedback.ai): its votes are soft, and carry the
probability q that it gives to the first. A vote of people is firm.

Nothing depends on the order judgments come in, nor on what raters or completions are called.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from tuneful.errors import DataError
from tuneful.records import Judgment

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """The rankings of all items that have K completions: I items, M rankings.

    items: I ids; completions: I tuples of K ids, sorted. item, rater: int [M]. ranks: int [M, K], aligned with the
    item's completions, 1 best, equal = tie, 0 = not ranked. q: float [M, P], aligned with `pairs`: of a soft ranking
    the probability given to the first of each pair that it ranks; NaN elsewhere, and all over a firm one.
    """

    items: tuple[str, ...]
    completions: tuple[tuple[str, ...], ...]
    item: Ints
    rater: Ints
    ranks: Ints
    q: Floats

    @property
    def pairs(self) -> tuple[Ints, Ints]:
        """First and second [P] of the P = C(K, 2) pairs of an item, as positions in its completions."""
        first, second = np.triu_indices(self.ranks.shape[1], 1)
        return first.astype(np.int64), second.astype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class PairVotes:
    """R votes on pairs, each the word of one ranking on two completions.

    pair, item, rater: int [R], numbered from 0 over all blocks, pair = P * item + position within a block. outcome:
    int [R], +1 when the first of the pair was preferred, -1 when the second was, 0 for a tie.
    """

    pair: Ints
    item: Ints
    rater: Ints
    outcome: Ints
    num_pairs: int
    num_items: int
    num_raters: int


@dataclass(frozen=True, slots=True, eq=False)
class Votes:
    """All rankings that count, by number of completions, and the judgments they came from."""

    blocks: tuple[Block, ...]
    raters: tuple[str, ...]
    prompts: dict[str, str]
    judgments: tuple[Judgment, ...]

    def pair_votes(self) -> PairVotes:
        """Every ranking taken apart into its pairs."""
        pairs, items, raters, outcomes = [], [], [], []
        num_pairs = num_items = 0
        for block in self.blocks:
            first, second = block.pairs
            a, b = block.ranks[:, first], block.ranks[:, second]
            row, position = np.nonzero((a > 0) & (b > 0))
            pairs.append(num_pairs + block.item[row] * len(first) + position)
            items.append(num_items + block.item[row])
            raters.append(block.rater[row])
            outcomes.append(np.sign(b - a)[row, position])
            num_pairs += len(block.items) * len(first)
            num_items += len(block.items)
        return PairVotes(
            pair=np.concatenate(pairs),
            item=np.concatenate(items),
            rater=np.concatenate(raters),
            outcome=np.concatenate(outcomes),
            num_pairs=num_pairs,
            num_items=num_items,
            num_raters=len(self.raters),
        )


def tabulate(judgments: Iterable[Judgment]) -> Votes:
    """The rankings and comparisons among `judgments`, each in its last revision, as arrays.

    A judgment that another one `replaces` is dropped; binary, rating and demonstration judgments are left out, since
    they order nothing; so is a ranking with fewer than two ranks. Raises DataError when nothing is left, when an id
    comes twice, when an item's prompt changes, when a completion stands in two items, and when criteria are mixed.
    """
    given = list(judgments)
    counted = _counted(given)
    if not given:
        raise DataError("judgments: there are none yet; a consensus needs some of kind ranking or comparison")
    if not counted:
        raise DataError("judgments: none orders two completions; a consensus needs kind ranking or comparison")
    members: dict[str, set[str]] = {}
    prompts: dict[str, str] = {}
    home: dict[str, str] = {}
    for j in counted:
        if prompts.setdefault(j.item, j.prompt) != j.prompt:
            raise DataError(f'judgment "{j.id}": item "{j.item}" has prompt "{prompts[j.item]}" and "{j.prompt}"')
        mine = members.setdefault(j.item, set())
        for completion, rank in zip(j.completions, j.ranks, strict=True):
            if rank is not None:
                mine.add(completion)
                if home.setdefault(completion, j.item) != j.item:
                    raise DataError(
                        f'judgment "{j.id}": completion "{completion}" stands in items "{home[completion]}" and '
                        f'"{j.item}"; give every item completion ids of its own'
                    )
    raters = sorted({j.rater for j in counted})
    number = {rater: n for n, rater in enumerate(raters)}
    by_size: dict[int, list[Judgment]] = {}
    for j in counted:
        by_size.setdefault(len(members[j.item]), []).append(j)
    blocks = tuple(_block(by_size[size], members, number) for size in sorted(by_size))
    return Votes(blocks, tuple(raters), prompts, tuple(counted))


def _counted(judgments: Iterable[Judgment]) -> list[Judgment]:
    by_id: dict[str, Judgment] = {}
    for j in judgments:
        if j.id in by_id:
            raise DataError(f'judgment "{j.id}" comes twice; ids must be unique')
        by_id[j.id] = j
    replaced = {j.replaces for j in by_id.values()}
    kept = []
    for j in by_id.values():
        if j.id in replaced or j.kind not in ("ranking", "comparison"):
            continue
        if len(j.ranks) != len(j.completions) or len(set(j.completions)) != len(j.completions):
            raise DataError(f'judgment "{j.id}": needs one rank or null for each of its different completions')
        if len(j.ranks) - j.ranks.count(None) >= 2:
            kept.append(j)
    criteria = sorted({j.criterion for j in kept})
    if len(criteria) > 1:
        raise DataError(f"judgments: several criteria ({', '.join(criteria)}); pass those of one criterion at a time")
    return sorted(kept, key=lambda j: (j.item, j.id))


def _block(judgments: list[Judgment], members: dict[str, set[str]], number: dict[str, int]) -> Block:
    items = list(dict.fromkeys(j.item for j in judgments))
    completions = [tuple(sorted(members[item])) for item in items]
    column = [{c: k for k, c in enumerate(ids)} for ids in completions]
    row = {item: n for n, item in enumerate(items)}
    size = len(completions[0])
    ranks, q = np.zeros((len(judgments), size), np.int64), np.full((len(judgments), size * (size - 1) // 2), np.nan)
    item = np.array([row[j.item] for j in judgments], np.int64)
    for n, j in enumerate(judgments):
        place = column[row[j.item]]
        for completion, rank in zip(j.completions, j.ranks, strict=True):
            if rank is not None:
                ranks[n, place[completion]] = rank
        if j.rater_kind == "ai" and j.values:
            q[n] = _soft(j.values, [c if rank else "" for c, rank in zip(place, ranks[n], strict=True)])
    rater = np.array([number[j.rater] for j in judgments], np.int64)
    return Block(tuple(items), tuple(completions), item, rater, ranks, q)


def _soft(values: Mapping[str, float], ranked: Sequence[str]) -> list[float]:
    """The probability given to the first of each pair of completions, the mean of both orders in which they were shown;
    NaN where one of them is not ranked, "", and everywhere unless it was said of all others."""
    found = []
    for a, b in combinations(ranked, 2):
        if a and b:
            said = values.get(f"{a}>{b}", math.nan), values.get(f"{b}>{a}", math.nan)
            if not all(0 <= p <= 1 for p in said):
                return [math.nan] * math.comb(len(ranked), 2)
            found.append((said[0] + 1 - said[1]) / 2)
        else:
            found.append(math.nan)
    return found
