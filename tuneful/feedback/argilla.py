"""Argilla's records, in the shapes that its versions export.

| version | made by                                | answers stand in                                                  |
|---------|----------------------------------------|-------------------------------------------------------------------|
| 2       | `records.to_json`, `to_list`           | `responses`: `{question: [{"value", "user_id"}]}`                 |
| 2       | `to_list(flatten=True)`, `to_datasets` | `question.responses`, `….responses.users`, `….responses.status`   |
| 1       | `FeedbackRecord`, and both servers     | `responses`: `[{"user_id", "status", "values": {question: ...}}]` |
| 1       | `format_as("datasets")`, on the hub    | `question`: `[{"user_id", "value", "status"}]`                    |

Read from argilla/src/argilla/records (_resource.py at 0991739, _io/_generic.py at 02e0d37) for 2 and
src/argilla/client/feedback (schemas/responses.py at 0b14828, integrations/huggingface/dataset.py at 098c0d5) for 1.

A record does not say of what type a question is; the value tells: `[{"rank", "value"}]` is a ranking, a number a
rating, text a label, or what was written where the question is known to ask for that. Drafts and what was discarded
are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tuneful.data.fields import text_of
from tuneful.data.row import Row
from tuneful.feedback.foreign import Taken, Word, entries, offered_in, plain, table, told, user_of
from tuneful.feedback.foreign_words import add_label, add_ranking, add_rating, criterion_of, rated_by

_STATUS = ("submitted", "draft", "discarded")
_ABOUT = frozenset({"id", "external_id", "metadata", "vectors", "_server_id", "score", "status"})
"""Columns of a flat record that are no fields of it."""
_WRITTEN = {"demonstration", "correction", "corrected", "correctedresponse", "betterresponse", "rewrite", "rewritten"}
"""Names of questions that ask for an answer to imitate."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one user, or one model, answered to one question; `place` says where in the row."""

    question: str
    user: Any
    status: Any
    value: Any
    place: str


def is_flat(row: Row) -> bool:
    """Whether a row is a record without `fields` and `responses`."""
    return any(key.endswith((".responses", "-suggestion")) or _is_flat_answer(v) for key, v in row.fields.items())


def read_record(row: Row, taken: Taken, name: str) -> None:
    """The item of a record and the judgments of it. What one user says in a broken way is a problem of it."""
    fields, answers = _record(row)
    offered = offered_in(row, taken, fields, "fields" if "fields" in row.fields else "record")
    by_user: dict[str, list[_Answer]] = {}
    for answer in answers:
        with taken.attempt(row, name):
            if answer.status not in (None, *_STATUS):
                mend = f"one of {', '.join(_STATUS)}"
                raise row.error(f"status {told(answer.status)} is unknown", mend, answer.place)
            if answer.status in ("draft", "discarded"):
                taken.skip(row.skipped(f"{answer.place} is {'a draft' if answer.status == 'draft' else 'discarded'}"))
            elif answer.value is not None:
                by_user.setdefault(user_of(row, "argilla", answer.user, answer.place), []).append(answer)
    for user, said in by_user.items():
        with taken.attempt(row, name):
            word = Word(offered, user, shown=offered.shown)
            for answer in said:
                _add_answer(row, taken, word, answer)
            taken.add(row, word)
    for suggestion in _suggestions(row) if taken.names.suggestions else ():
        with taken.attempt(row, name):
            agent = "-".join(str(suggestion.user or "suggestion").split())
            word = Word(offered, f"argilla-{agent}", "ai")
            _add_answer(row, taken, word, suggestion)
            taken.add(row, word)


def _add_answer(row: Row, taken: Taken, word: Word, answer: _Answer) -> None:
    question, value, place = answer.question, answer.value, answer.place
    criterion = criterion_of(question)
    if isinstance(value, str):
        if question in taken.names.demonstrations or plain(question) in _WRITTEN:
            word.texts["preference"] = text_of(row, value, place)
        else:
            add_label(row, word, taken.names, criterion, value, place)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        one, criterion = rated_by(row, word, question, place)
        add_rating(row, word, criterion, one, value, place)
    elif isinstance(value, dict) and value.keys() == {"rank", "value"}:  # in columns, as `datasets` keeps such lists
        names, ranks = (entries(row, value[column], place) for column in ("value", "rank"))
        if len(names) != len(ranks):
            raise row.error(f"{len(ranks)} ranks for {len(names)} answers", "give one or null to each", place)
        add_ranking(row, word, criterion, zip(names, ranks, strict=True), place)
    elif isinstance(value, list) and all(isinstance(entry, str) for entry in value):
        for label in value:
            add_label(row, word, taken.names, criterion, label, place)
    elif isinstance(value, list) and all(isinstance(entry, dict) and "value" in entry for entry in value):
        ranking = [(entry["value"], entry.get("rank")) for entry in value]
        add_ranking(row, word, criterion, ranking, place)
    elif isinstance(value, list) and all(isinstance(entry, dict) and "start" in entry for entry in value):
        taken.skip(row.skipped(f"{place} marks spans, which neither order nor rate"))
    else:
        raise row.error(f"got {told(value)}", "a ranking, a rating, a label or text", place)


def _record(row: Row) -> tuple[Mapping[str, Any], list[_Answer]]:
    """The fields of a record, and the answers of all users to all questions."""
    if "fields" not in row.fields:
        return _flat_record(row)
    fields, responses = table(row, row.fields["fields"], "fields"), row.fields.get("responses")
    if isinstance(responses, list):
        return fields, [answer for n, one in enumerate(responses) for answer in _answers_of_user(row, one, n)]
    answers = []
    for question, given in table(row, {} if responses is None else responses, "responses").items():
        place = f"responses.{question}"
        for n, one in enumerate(entries(row, given, place)):
            answers.append(_answer_of(question, table(row, one, f"{place}[{n}]"), f"{place}[{n}]"))
    return fields, answers


def _answer_of(question: str, known: Mapping[str, Any], place: str) -> _Answer:
    return _Answer(question, known.get("user_id"), known.get("status"), known.get("value"), place)


def _answers_of_user(row: Row, response: Any, n: int) -> Iterator[_Answer]:
    known = table(row, response, f"responses[{n}]")
    values = known.get("values") or {}  # null where a record was discarded without an answer
    for part in values if isinstance(values, list) else [values]:
        for question, value in table(row, part, f"responses[{n}].values").items():
            place = f"responses[{n}].values.{question}"
            said = table(row, value, place).get("value")
            yield _Answer(question, known.get("user_id"), known.get("status"), said, place)


def _flat_record(row: Row) -> tuple[Mapping[str, Any], list[_Answer]]:
    answers: list[_Answer] = []
    fields: dict[str, Any] = {}
    for key, value in row.fields.items():
        if key.endswith(".responses"):
            answers += _columns(row, key) if value is not None else []
        elif _is_flat_answer(value):
            answers += [_answer_of(key, one, f"{key}[{n}]") for n, one in enumerate(value)]
        elif key not in _ABOUT and not re.search(r"\.responses\.|[.-]suggestion\b", key) and value is not None:
            fields[key] = value
    return fields, answers


def _columns(row: Row, key: str) -> Iterator[_Answer]:
    """The answers to the question of column `key`: values, users and status stand in a column each."""
    values = entries(row, row.fields[key], key)
    users = entries(row, row.fields.get(f"{key}.users"), f"{key}.users")
    status = entries(row, row.fields.get(f"{key}.status") or [None] * len(values), f"{key}.status")
    if not len(values) == len(users) == len(status):
        raise row.error(f"{len(values)} answers of {len(users)} users", "export it anew", key)
    for n, (value, user, state) in enumerate(zip(values, users, status, strict=True)):
        yield _Answer(key.removesuffix(".responses"), user, state, value, f"{key}[{n}]")


def _is_flat_answer(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) and "status" in v for v in value)


def _suggestions(row: Row) -> Iterator[_Answer]:
    """What models suggested; `user` is the agent."""
    given = row.fields.get("suggestions") or {}
    for key, one in given.items() if isinstance(given, dict) else enumerate(entries(row, given, "suggestions")):
        place = f"suggestions[{key}]"
        known = table(row, one, place)
        question = known.get("question_name") if isinstance(key, int) else key
        if not isinstance(question, str):
            raise row.error(f"got {told(question)}", "name the question", f"{place}.question_name")
        if known.get("type") != "human" and known.get("value") is not None:
            yield _Answer(question, known.get("agent"), None, known["value"], place)
    for key, value in row.fields.items():
        if key.endswith((".suggestion", "-suggestion")) and value is not None:
            agent = row.fields.get(f"{key}.agent") or row.fields.get(f"{key}-metadata")
            agent = agent.get("agent") if isinstance(agent, dict) else agent
            yield _Answer(key[: -len(".suggestion")], agent, None, value, key)
