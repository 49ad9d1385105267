"""What differs between two texts, line by line, for a page to show."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import Literal

Part = tuple[Literal["same", "old", "new"], str]


def changes(before: str, after: str) -> list[Part]:
    """The lines of both texts in order: those in both, those of the first alone and those of the second alone."""
    return list(_parts(before.splitlines(), after.splitlines()))


def _parts(before: list[str], after: list[str]) -> Iterator[Part]:
    for step, a, b, c, d in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if step == "equal":
            yield from (("same", line) for line in before[a:b])
        else:
            yield from (("old", line) for line in before[a:b])
            yield from (("new", line) for line in after[c:d])
