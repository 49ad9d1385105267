"""Label Studio's export "JSON": tasks with their data and the annotations of each.

Read as the editor writes results (web/libs/editor/src/tags/control: Ranker.jsx at 394f59b, Pairwise.js at 054d419) and
as its guide describes the rest (docs/source/guide/export.md at 05f6d2d). An annotation has `result`, `completed_by` (a
number, or an object with `id`), `was_cancelled`, `lead_time` and `created_at`. The short form JSON_MIN does not say who
judged and cannot be read.

| tag      | `value` of a result                                    | gives                                            |
|----------|--------------------------------------------------------|--------------------------------------------------|
| Ranker   | `{"ranker": {name: [ids]}}`, older `{"ranker": [ids]}` | a ranking; of buckets, when their order is known |
| Pairwise | `{"selected": "left"}`                                 | a comparison                                     |
| Rating   | `{"rating": 4}`                                        | a rating, by the criterion that the tag is named |
| Choices  | `{"choices": ["Good"]}`                                | good or bad, which is better, or a flag          |

A tie cannot be told in Pairwise: the editor then writes no result, as it does where nothing was done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tuneful.data.fields import text_of
from tuneful.data.row import Row, is_finite
from tuneful.feedback.foreign import Names, Offered, Taken, Word, entries, offered_in, table, told, user_of
from tuneful.feedback.foreign_words import add_label, add_ranking, add_rating, criterion_of, rated_by


def read_task(row: Row, taken: Taken, name: str) -> None:
    """The item of a task and the judgments of it. An annotation that is broken is a problem of the task `name`."""
    offered = offered_in(row, taken, table(row, row.value("data"), "data"), "data")
    for n, annotation in enumerate(entries(row, row.value("annotations"), "annotations")):
        with taken.attempt(row, name):
            _read_annotation(row, taken, offered, table(row, annotation, f"annotations[{n}]"), f"annotations[{n}]")


def _read_annotation(row: Row, taken: Taken, offered: Offered, annotation: Mapping[str, Any], place: str) -> None:
    if annotation.get("was_cancelled"):
        taken.skip(row.skipped(f"{place} was cancelled by its rater"))
        return
    results = entries(row, annotation.get("result"), f"{place}.result")
    if not results:
        taken.skip(row.skipped(f"{place} says nothing"))
        return
    who, created = annotation.get("completed_by"), annotation.get("created_at")
    word = Word(
        offered,
        user_of(row, "label-studio", who.get("id") if isinstance(who, dict) else who, f"{place}.completed_by"),
        shown=offered.shown,
        seconds=_seconds(row, annotation.get("lead_time"), f"{place}.lead_time"),
        created_at="" if created is None else text_of(row, created, f"{place}.created_at"),
    )
    for k, result in enumerate(results):
        where = f"{place}.result[{k}]"
        _read_result(row, taken, word, table(row, result, where), where)
    taken.add(row, word)


def _read_result(row: Row, taken: Taken, word: Word, result: Mapping[str, Any], place: str) -> None:
    kind, name = result.get("type"), str(result.get("from_name") or "")
    if kind not in ("ranker", "pairwise", "rating", "choices"):
        taken.skip(row.skipped(f"{place} is of type {told(kind)}, which neither orders nor rates"))
        return
    value, criterion = table(row, result.get("value"), f"{place}.value"), criterion_of(name)
    where = f"{place}.value.{'selected' if kind == 'pairwise' else kind}"
    if kind == "ranker":
        add_ranking(row, word, criterion, _ranks(row, taken.names, value.get("ranker"), name, where), where)
    elif kind == "pairwise":
        sides = _sides(row, word.offered, result.get("to_name"), place)
        if value.get("selected") not in ("left", "right"):
            raise row.error(f"got {told(value.get('selected'))}", '"left" or "right"', where)
        ranks = (1, 2) if value["selected"] == "left" else (2, 1)
        add_ranking(row, word, criterion, zip(sides, ranks, strict=True), where)
    elif kind == "rating":
        one = word.offered.find(result.get("to_name"))
        if one is None:
            one, criterion = rated_by(row, word, name, place)
        add_rating(row, word, criterion, one, value.get("rating"), where)
    else:
        for label in entries(row, value.get("choices"), where):
            add_label(row, word, taken.names, criterion, label, where)


def _ranks(row: Row, names: Names, ranked: Any, name: str, place: str) -> Iterator[tuple[Any, int | None]]:
    """(id, rank) of lists of ids: one list by the tag's own name is in order; of several, each is a bucket."""
    lists = {name: ranked} if isinstance(ranked, list) else table(row, ranked, place)
    for key, ids in lists.items():
        held = entries(row, ids, f"{place}.{key}")
        if lists.keys() == {name}:
            yield from ((one, rank) for rank, one in enumerate(held, start=1))
        elif key == "_":  # what was left where it stood
            yield from ((one, None) for one in held)
        elif key in names.tiers:
            yield from ((one, names.tiers.index(key) + 1) for one in held)
        elif held:
            raise row.error(f"bucket {told(key)} has no place in an order", "name all buckets, the best first", place)


def _sides(row: Row, offered: Offered, to_name: Any, place: str) -> tuple[str, str]:
    """What stood left and right: the two that `to_name` names where the data call them so, else the two there are."""
    named = [part.strip() for part in to_name.split(",")] if isinstance(to_name, str) else []
    if len(named) != 2 or not all(offered.find(name) for name in named):
        named = list(offered.named)
    if len(named) != 2:
        raise row.error(f"compares two of {len(named)} answers", "name the two, the left one first", place)
    return named[0], named[1]


def _seconds(row: Row, value: Any, field: str) -> float | None:
    if value is not None and not (is_finite(value) and value >= 0):
        raise row.error(f"got {told(value)}", "a number of seconds from 0 up, or null", field)
    return None if value is None else float(value)
