"""Items from a file or a program, as a project of their kind takes them; each fault is told by its line."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial
from itertools import chain
from pathlib import Path

from tuneful.data import completions
from tuneful.data.files import read_rows
from tuneful.data.formats import BARE, FORMATS, Reader, format_of, not_expected
from tuneful.data.prompt_lines import is_plain_text
from tuneful.data.row import Row
from tuneful.errors import DataError
from tuneful.feedback.items import may_be_bare, require_fits
from tuneful.feedback.whole_rows import Faults, whole_rows
from tuneful.records import Candidates, JudgmentKind


def read_items(path: Path, kind: JudgmentKind, faults: Faults) -> list[Candidates]:
    """The items of a file of completions or trees; for demonstrations prompts alone do.

    What is broken, or cannot be judged so, becomes a fault, and the file goes on. Raises DataError for a file that
    cannot be read, holds no rows, or holds something else.
    """
    rows = read_rows(path) if is_plain_text(path) else whole_rows(path, faults)
    first = next(rows, None)
    if first is None:
        if not faults.lines:
            raise DataError(f"{path}: holds no rows; write one JSON object per line")
        return []
    return items_in(chain([first], rows), kind, faults, read=_reader(first, kind))


def items_in(
    rows: Iterable[Row], kind: JudgmentKind, faults: Faults, *, read: Reader | None = None
) -> list[Candidates]:
    """The items that rows of completions hold, or what `read` makes of them, without those at fault."""
    read = read or partial(completions.candidates, bare=may_be_bare(kind))
    taken, line_of = list[Candidates](), dict[str, int]()
    for row in rows:
        with faults.attempt(row):
            for given in read([row], logging.getLogger(__name__).warning):
                with faults.attempt(row):
                    require_item(row, kind, given, line_of)
                    taken.append(given)
    return completions.with_ids(taken)


def _reader(first: Row, kind: JudgmentKind) -> Reader | None:
    """What reads a file whose first row this is; None for completions."""
    found, bare = format_of(first), may_be_bare(kind)
    if found.name == "completions" or (bare and found.name in BARE):
        return None
    if "candidates" in found.gives:
        return found.gives["candidates"]
    able = [known.name for known in FORMATS if "candidates" in known.gives]
    problem = not_expected(first.path, found, [*able, "prompts"] if bare else able)
    raise DataError(f"{problem}; prompts alone are for demonstrations" if found.name == "prompts" else str(problem))


def require_item(row: Row, kind: JudgmentKind, given: Candidates, line_of: dict[str, int]) -> None:
    """StoreError for an item that cannot be judged so, DataError for the id of a completion that came before.

    line_of: the line of each id so far, to which those of this item are added.
    """
    require_fits(kind, given)
    named = [one.id for one in given.completions if one.id]
    for id_ in named:
        if id_ in line_of:
            problem = f'"{id_}" stands on line {line_of[id_]} already'
            raise row.error(problem, "an id belongs to one completion of the file", "completions")
    line_of |= dict.fromkeys(named, row.line)
