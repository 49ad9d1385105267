"""Completions: prompts with the answers that models gave to them, each answer known by its id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, cast, get_args

from tuneful.data.fields import prompt_in, text_of
from tuneful.data.row import Row, Skip
from tuneful.records import Candidates, Completion, Finish, Prompt, content_hash


def candidates(rows: Iterable[Row], _: Skip, *, bare: bool = False) -> Iterator[Candidates]:
    """The completions of every row, those without an id still without. bare: a row may have none.

    A completion may be empty only when its `finish` says that a model ended there: then it is an answer, not a gap.
    """
    line_of: dict[str, int] = {}
    for row in rows:
        offered = row.fields.get("completions", []) if bare else row.value("completions")
        if not isinstance(offered, list) or not (offered or bare):
            wanted = "a list of completions" if bare else "a list of at least one completion"
            raise row.error(f"expected {wanted}", "add completions or remove the row", "completions")
        completions = tuple(_completion(row, value, f"completions[{i}]") for i, value in enumerate(offered))
        for i, completion in enumerate(completions):
            if completion.id in line_of:
                problem = f'"{completion.id}" stands on line {line_of[completion.id]} already'
                raise row.error(problem, "an id belongs to one completion of the file", f"completions[{i}].id")
            if completion.id:
                line_of[completion.id] = row.line
        yield Candidates(prompt_in(row), completions)


def with_ids(candidates: Iterable[Candidates]) -> list[Candidates]:
    """The same candidates, every completion with an id.

    A missing id is the hash of prompt, model, text, and how many equal ones came before, so that the same file has the
    same ids everywhere and two equal samples are still two completions.
    """
    seen: Counter[tuple[str, str | None, str]] = Counter()

    def named(prompt: Prompt, completion: Completion) -> Completion:
        if completion.id:
            return completion
        content = (prompt.id, completion.model, completion.text)
        seen[content] += 1
        return replace(completion, id=content_hash("completion", *content, seen[content]))

    return [Candidates(row.prompt, tuple(named(row.prompt, c) for c in row.completions)) for row in candidates]


def candidates_row(candidates: Candidates) -> dict[str, Any]:
    """The row of a prompt and its completions; what is not known is left out."""
    return {
        "prompt": candidates.prompt.as_json(),
        "completions": [_fields(c) for c in candidates.completions],
    }


def _completion(row: Row, value: Any, field: str) -> Completion:
    if not isinstance(value, dict):
        return Completion(text_of(row, value, field))
    if "text" not in value:
        raise row.error("missing", 'a completion is text or {"text": ...}', f"{field}.text")
    finish, tokens, model, id_ = (value.get(key) for key in ("finish", "tokens", "model", "id"))
    if finish is not None and finish not in get_args(Finish):
        raise row.error(f"got {finish!r}", f"one of {', '.join(get_args(Finish))}", f"{field}.finish")
    if tokens is not None and not (isinstance(tokens, list) and all(type(token) is int for token in tokens)):
        raise row.error("expected a list of token ids", "write whole numbers or leave it out", f"{field}.tokens")
    return Completion(
        text=text_of(row, value["text"], f"{field}.text", empty=finish is not None),
        tokens=None if tokens is None else tuple(tokens),
        finish=cast("Finish | None", finish),
        model=None if model is None else text_of(row, model, f"{field}.model"),
        id="" if id_ is None else text_of(row, id_, f"{field}.id"),
    )


def _fields(completion: Completion) -> dict[str, Any]:
    known = {"model": completion.model, "finish": completion.finish, "tokens": completion.tokens}
    known_id = {"id": completion.id} if completion.id else {}
    return {"text": completion.text} | known_id | {key: value for key, value in known.items() if value is not None}
