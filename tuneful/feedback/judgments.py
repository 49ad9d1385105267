"""Files of judgments: one JSON object per line with the fields of `Judgment`, `.jsonl` or `.jsonl.gz`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast, get_args

from tuneful.data.files import read_rows
from tuneful.data.jsonl import write_jsonl
from tuneful.data.row import Row, is_finite
from tuneful.errors import did_you_mean
from tuneful.records import Judgment, JudgmentKind, RaterKind

_FIELDS = [field.name for field in dataclasses.fields(Judgment)]
_REQUIRED = ("id", "item", "prompt", "completions", "rater")


def read_judgments(path: Path) -> list[Judgment]:
    """The judgments of a file in order.

    Raises DataError, naming file, line and field, for an unknown or missing field, a wrong value, ranks that do not fit
    the completions, and an id that comes twice.
    """
    judgments, line_of = [], dict[str, int]()
    for row in read_rows(path):
        judgment = judgment_in(row)
        if judgment.id in line_of:
            problem = f'"{judgment.id}" stands on line {line_of[judgment.id]} already'
            raise row.error(problem, "every judgment has an id of its own; a revision names the earlier one", "id")
        line_of[judgment.id] = row.line
        judgments.append(judgment)
    return judgments


def write_judgments(path: Path, judgments: Iterable[Judgment], *, force: bool = False) -> int:
    """Write judgments as rows that `read_judgments` gives back unchanged; returns how many.

    Raises DataError when the file exists, unless `force`.
    """
    return write_jsonl(path, map(judgment_row, judgments), force=force)


def judgment_row(judgment: Judgment) -> dict[str, Any]:
    """The row of a file that holds a judgment."""
    row = {name: getattr(judgment, name) for name in _FIELDS}
    return row | {"flags": dict(judgment.flags), "values": dict(judgment.values)}


def judgment_in(row: Row) -> Judgment:
    """The judgment that a row holds. Raises DataError as `read_judgments` does."""
    for name in row.fields:
        if name not in _FIELDS:
            raise row.error("unknown", f"remove it{did_you_mean(name, _FIELDS)}", name)
    for name in _REQUIRED:
        if name not in row.fields:
            raise row.error("missing", f"every judgment has {', '.join(_REQUIRED)}", name)
    kind = _choice(row, "kind", get_args(JudgmentKind), "ranking")
    completions = _ids(row, "completions", row.fields["completions"])
    if not completions and kind != "demonstration":
        raise row.error("empty", "name the completions that were judged", "completions")
    shown = _ids(row, "shown_order", row.fields.get("shown_order", []))
    if shown and sorted(shown) != sorted(completions):
        raise row.error("not the completions in another order", "list each once, or leave it out", "shown_order")
    judgment = Judgment(
        id=_id(row, "id"),
        item=_id(row, "item"),
        prompt=_id(row, "prompt"),
        completions=completions,
        rater=_id(row, "rater"),
        rater_kind=cast(RaterKind, _choice(row, "rater_kind", get_args(RaterKind), "human")),
        kind=cast(JudgmentKind, kind),
        ranks=_ranks(row, kind, len(completions)),
        flags=_flags(row, completions),
        values=_values(row),
        text=_text(row, "text", ""),
        criterion=_text(row, "criterion", "preference"),
        shown_order=shown,
        instructions=_text(row, "instructions", ""),
        seconds=_seconds(row),
        created_at=time_in(row),
        replaces=None if row.fields.get("replaces") is None else _id(row, "replaces"),
        note=_text(row, "note", ""),
    )
    if judgment.replaces == judgment.id:
        raise row.error("names the judgment itself", "give the revision an id of its own", "replaces")
    return judgment


def time_in(row: Row) -> str:
    """What a row says in created_at; empty where it does not. Raises DataError for what is no time."""
    said = _text(row, "created_at", "")
    try:
        if said:
            seconds_of(said)
    except ValueError as error:
        raise row.error(str(error), "or leave it out", "created_at") from None
    return said


def seconds_of(created_at: str) -> float:
    """Seconds since 1970 of a time in ISO 8601; without a zone it is UTC. Raises ValueError for what is none."""
    try:
        at = datetime.fromisoformat(created_at)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        mend = "write ISO 8601, such as 2026-11-20T10:00:00+00:00 (UTC where it names no zone)"
        raise ValueError(f"{created_at[:40]!a} is no time; {mend}") from None


def _ranks(row: Row, kind: str, size: int) -> tuple[int | None, ...]:
    ranks = row.fields.get("ranks", [])
    if not isinstance(ranks, list):
        raise row.error(f"expected a list, got {ranks!r}", "give one rank or null to each completion", "ranks")
    orders = kind in ("ranking", "comparison")
    if kind == "comparison" and size != 2:
        raise row.error(f"a comparison of {size}", "compare two, or use kind ranking", "completions")
    if len(ranks) != size and (orders or ranks):
        raise row.error(f"{len(ranks)} for {size} completions", "give one rank or null to each", "ranks")
    for rank in ranks:
        if rank is not None and (not isinstance(rank, int) or isinstance(rank, bool) or rank < 1):
            raise row.error(f"{rank!r} is no rank", "use 1 for the best, 2, 3 ...; null = not ranked", "ranks")
    return tuple(ranks)


def _flags(row: Row, completions: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    flags = _table(row, "flags", "completion ids")
    for completion, names in flags.items():
        if completion not in completions:
            raise row.error(f'"{completion}" was not judged{did_you_mean(completion, completions)}', "mend it", "flags")
        if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
            raise row.error(f"{names!r} of {completion!r}", 'give a list of names, such as ["unsafe"]', "flags")
    return {completion: tuple(names) for completion, names in flags.items()}


def _values(row: Row) -> dict[str, float]:
    values = _table(row, "values", "names")
    for name, value in values.items():
        if not is_finite(value):
            raise row.error(f"{value!r} of {name!r}", "give a finite number", "values")
    return values


def _seconds(row: Row) -> float | None:
    seconds = row.fields.get("seconds")
    if seconds is not None and not (is_finite(seconds) and seconds >= 0):
        raise row.error(f"{seconds!r}", "give a number of seconds from 0 up, or null", "seconds")
    return cast("float | None", seconds)


def _table(row: Row, field: str, keys: str) -> dict[str, Any]:
    table = row.fields.get(field, {})
    if not isinstance(table, dict):
        raise row.error(f"expected an object, got {table!r}", f"use {keys} as keys, or leave it out", field)
    return table


def _ids(row: Row, field: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(entry, str) and entry for entry in value):
        raise row.error(f"expected a list of completion ids, got {value!r}", "ids are strings and not empty", field)
    for entry in value:
        if value.count(entry) > 1:
            raise row.error(f'"{entry}" comes twice', "name each completion once", field)
    return tuple(value)


def _id(row: Row, field: str) -> str:
    value = row.fields[field]
    if not isinstance(value, str) or not value or value != value.strip():
        raise row.error(f"{value!r} is no id", "use a string without spaces around it, such as a UUID", field)
    return value


def _text(row: Row, field: str, default: str) -> str:
    value = row.fields.get(field, default)
    if not isinstance(value, str):
        raise row.error(f"expected text, got {value!r}", "write it in quotes", field)
    return value


def _choice(row: Row, field: str, known: tuple[str, ...], default: str) -> str:
    value = row.fields.get(field, default)
    if value not in known:
        raise row.error(f"{value!r} is unknown", f"mend it{did_you_mean(str(value), known)}", field)
    return str(value)
