"""Plans of batches as lists of row numbers; the tensors are made elsewhere."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache

from tuneful.errors import ConfigError

TOKENS_PER_PASS = 2_048
"""Padded tokens of one forward pass where nothing else is said: more are no faster on a CPU, and take more memory."""


def shuffled_epochs(num_rows: int, seed: int) -> Callable[[int], int]:
    """A function from position (0, 1, 2, ... without end) to row number; every `num_rows` positions are one shuffle.

    The order of epoch e is a pure function of seed and e: whoever knows the position can go on, nothing else is kept.
    """
    if num_rows < 1:
        raise ConfigError(f"there must be at least one row to shuffle, got {num_rows}")

    @lru_cache(maxsize=1)
    def order(epoch: int) -> list[int]:
        # Sorting by random() rather than shuffle(): only random() is promised to stay the same in later Pythons.
        draw = random.Random(f"{seed}/{epoch}").random
        keys = [draw() for _ in range(num_rows)]
        return sorted(range(num_rows), key=keys.__getitem__)

    def row(position: int) -> int:
        epoch, place = divmod(position, num_rows)
        return order(epoch)[place]

    return row


def shuffled_batches(num_rows: int, size: int, seed: int) -> Callable[[int], list[int]]:
    """A function from step number to the `size` rows of that step; steps run on through `shuffled_epochs`."""
    order = shuffled_epochs(num_rows, seed)
    return lambda step: [order(step * size + k) for k in range(size)]


def token_budget_batches(
    lengths: Sequence[int],
    tokens_per_microbatch: int,
    units: Sequence[int] | None = None,
    prompts: Sequence[Hashable] | None = None,
) -> list[list[int]]:
    """Row numbers cut into batches whose padded size, rows x longest row, keeps within `tokens_per_microbatch`.

    lengths: tokens of each row. units: the unit of each row; rows of one unit (the pairs of one prompt) stay together.
    prompts: that of each row; rows of an equal one follow each other, so that a pass can share it (models/ragged.py).
    Rows of like length go together, longest first, so that too small a memory shows in the first batch. A unit above
    the budget is a batch of its own.
    """
    if tokens_per_microbatch < 1:
        raise ConfigError(f"tokens_per_microbatch must be at least 1, got {tokens_per_microbatch}")
    members = _members(len(lengths), units)
    longest = {unit: max(lengths[row] for row in rows) for unit, rows in members.items()}

    prompt_of = {unit: rows[0] if prompts is None else prompts[rows[0]] for unit, rows in members.items()}
    first: dict[Hashable, int] = {}
    widest: dict[Hashable, int] = {}
    for unit, prompt in prompt_of.items():
        first.setdefault(prompt, unit)
        widest[prompt] = max(widest.get(prompt, 0), longest[unit])

    def order(unit: int) -> tuple[int, int, int]:
        prompt = prompt_of[unit]
        return -widest[prompt], first[prompt], -longest[unit]

    batches: list[list[int]] = []
    width = 0
    for unit in sorted(members, key=order):
        wider = max(width, longest[unit])
        if batches and (len(batches[-1]) + len(members[unit])) * wider <= tokens_per_microbatch:
            batches[-1].extend(members[unit])
            width = wider
        else:
            batches.append(list(members[unit]))
            width = longest[unit]
    return batches


def balanced_shares(lengths: Sequence[int], num_shares: int, units: Sequence[int] | None = None) -> list[list[int]]:
    """Row numbers dealt out into shares of like tokens, each in ascending order; some are empty when units are few.

    lengths, units: as in token_budget_batches. Longest processing time first (Graham 1969): units from the largest
    down, each to the share that has the least so far, so that the largest share is at most 4/3 of the best possible.
    """
    members = _members(len(lengths), units)
    tokens = {unit: sum(lengths[row] for row in rows) for unit, rows in members.items()}
    shares: list[list[int]] = [[] for _ in range(num_shares)]
    least = [(0, number) for number in range(num_shares)]
    for unit in sorted(members, key=tokens.__getitem__, reverse=True):
        held, number = least[0]
        heapq.heapreplace(least, (held + tokens[unit], number))
        shares[number].extend(members[unit])
    return [sorted(share) for share in shares]


def _members(num_rows: int, units: Sequence[int] | None) -> dict[int, list[int]]:
    """The rows of each unit."""
    members: dict[int, list[int]] = {}
    for row, unit in enumerate(range(num_rows) if units is None else units):
        members.setdefault(unit, []).append(row)
    return members
