"""Four sets by the first user turn, and a guard that hands each only to those it is for (docs/decisions/0004).

The split of a prompt depends on its first user turn alone: prompts added later move nobody, and a whole conversation
family, its completions and its pairs stay together.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Generic, Literal, TypeVar

from tuneful.errors import ConfigError, DataError, did_you_mean
from tuneful.records import Candidates, Comparison, Demonstration, Prompt, Ranking, UnpairedPreference

R = TypeVar("R", Prompt, Candidates, Demonstration, Comparison, Ranking, UnpairedPreference)

Purpose = Literal["train", "stop", "report"]

SHARES: Mapping[str, float] = MappingProxyType({"reward": 0.4, "rl": 0.4, "dev": 0.1, "test": 0.1})
"""The demo's shares."""

ALLOWED: Mapping[Purpose, frozenset[str]] = MappingProxyType(
    {"train": frozenset({"reward", "rl"}), "stop": frozenset({"dev"}), "report": frozenset({"test"})}
)
"""Which sets each purpose may read."""


def split_of(prompt: Prompt, shares: Mapping[str, float] = SHARES) -> str:
    """The name of the split a prompt belongs to.

    SHA-256 of a newline and the split key gives a number in [0, 1); the shares cut that range in their order.
    """
    _check(shares)
    place = int.from_bytes(hashlib.sha256(f"\n{split_key(prompt)}".encode()).digest()[:8]) / 2**64
    upper = 0.0
    for name, share in shares.items():
        upper += share
        if place < upper:
            return name
    return [name for name, share in shares.items() if share > 0][-1]  # the shares' sum may round to just below 1


def split_key(prompt: Prompt) -> str:
    """What decides a prompt's split: its first user turn, case folded, white space as single blanks."""
    return " ".join(prompt.first_turn.split()).casefold()


def split(records: Iterable[R], shares: Mapping[str, float] = SHARES) -> dict[str, list[R]]:
    """Prompts, or records that have one, by split; order is kept and every split has a list."""
    sets: dict[str, list[R]] = {name: [] for name in shares}
    for record in records:
        sets[split_of(prompt_of(record), shares)].append(record)
    return sets


class Splits(Generic[R]):
    """The split sets of one file, read only for what they are meant for; who read what is kept for `run.json`."""

    def __init__(self, records: Iterable[R], shares: Mapping[str, float] = SHARES) -> None:
        self._sets: dict[str, list[R]] = split(records, shares)
        self._reads: dict[tuple[str, Purpose, str], None] = {}

    def read(self, name: str, *, purpose: Purpose, stage: str = "") -> list[R]:
        """The records of split `name`, for `purpose` in pipeline stage `stage`.

        Raises DataError when the purpose may not see this split, or the split is unknown or empty.
        """
        if name not in self._sets:
            raise DataError(f'no split is called "{name}"{did_you_mean(name, self._sets)}')
        if purpose not in ALLOWED:
            raise DataError(f'no purpose is called "{purpose}"{did_you_mean(purpose, ALLOWED)}')
        if name not in ALLOWED[purpose]:
            who = f'stage "{stage}"' if stage else "this stage"
            allowed = " or ".join(f'"{split}"' for split in sorted(ALLOWED[purpose]))
            raise DataError(f'{who} may not read split "{name}" for purpose "{purpose}"; it reads {allowed}')
        if not self._sets[name]:
            counts = ", ".join(f"{split} {len(rows)}" for split, rows in self._sets.items())
            raise DataError(f'split "{name}" is empty ({counts}); add prompts or change the shares')
        self._reads[name, purpose, stage] = None
        return list(self._sets[name])

    @property
    def reads(self) -> list[dict[str, str]]:
        """Each different reading once, in order: which split, for which purpose, by which stage."""
        return [{"split": name, "purpose": purpose, "stage": stage} for name, purpose, stage in self._reads]

    def manifest(self) -> dict[str, str]:
        """Which prompt (by id) went to which split."""
        return {prompt_of(record).id: name for name, records in self._sets.items() for record in records}


def prompt_of(record: Prompt | Candidates | Demonstration | Comparison | Ranking | UnpairedPreference) -> Prompt:
    """A prompt itself, and the prompt of a record that has one."""
    return record if isinstance(record, Prompt) else record.prompt


def _check(shares: Mapping[str, float]) -> None:
    if not shares or min(shares.values()) < 0 or not math.isclose(sum(shares.values()), 1, abs_tol=1e-9):
        raise ConfigError(f"shares must not be negative and add up to 1, got {dict(shares)}")
