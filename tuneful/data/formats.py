"""JSONL files of prompts, completions, demonstrations and comparisons, recognised by their keys.

| format         | one row                                                                                       |
|----------------|-----------------------------------------------------------------------------------------------|
| prompts        | `{"prompt": str or messages}`                                                                 |
| completions    | `{"prompt", "completions": [str or {"text", "model", "id", "finish", "tokens"}]}`             |
| demonstrations | `{"prompt", "completion"}`                                                                    |
| preferences    | `{"prompt", "chosen", "rejected"}` as in TRL, with `p`, `weight`, `group`, `margin` if known  |
| transcripts    | `{"chosen", "rejected"}`, each a whole conversation as in Anthropic's HH data                 |

The first row decides the format and every row must follow it. Keys a format does not name are ignored.
"""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

from tuneful.data.jsonl import Row, json_kind, read_rows
from tuneful.errors import DataError
from tuneful.records import Candidates, Comparison, Completion, Demonstration, Finish, Message, Prompt, content_hash

Format = Literal["prompts", "completions", "demonstrations", "preferences", "transcripts"]

_SPEAKERS = {"Human": "user", "Assistant": "assistant"}
_TURN = re.compile(r"\n\n(Human|Assistant): ?")


def detect(path: Path) -> Format:
    """The format of a file, told from the keys of its first row."""
    return _format_of(next(iter(read_rows(path))))


def read_prompts(path: Path, *, on_skip: Callable[[str], None] | None = None) -> list[Prompt]:
    """The prompts of a file of any format, each once, in order of first appearance.

    Transcripts that cannot be used are skipped and reported as in `read_comparisons`.
    """
    prompts: dict[str, Prompt] = {}
    for row, kind in _rows_of(path, get_args(Format)):
        if kind != "transcripts":
            prompt = _prompt(row)
        elif comparison := _from_transcripts(row, on_skip):
            prompt = comparison.prompt
        else:
            continue
        prompts.setdefault(prompt.id, prompt)
    return list(prompts.values())


def read_candidates(path: Path) -> list[Candidates]:
    """The rows of a completions file; completions without an id get one from their content (see `with_ids`).

    A completion may be empty only when its `finish` says that a model ended there: then it is an answer, not a gap.
    """
    candidates: list[Candidates] = []
    line_of: dict[str, int] = {}
    for row, _ in _rows_of(path, ["completions"]):
        offered = row.value("completions")
        if not isinstance(offered, list) or not offered:
            raise row.error(
                "expected a list of at least one completion", "add completions or remove the row", "completions"
            )
        completions = tuple(_completion(row, value, f"completions[{i}]") for i, value in enumerate(offered))
        for i, completion in enumerate(completions):
            if completion.id in line_of:
                problem = f'"{completion.id}" stands on line {line_of[completion.id]} already'
                raise row.error(problem, "an id belongs to one completion of the file", f"completions[{i}].id")
            if completion.id:
                line_of[completion.id] = row.line
        candidates.append(Candidates(_prompt(row), completions))
    return with_ids(candidates)


def read_demonstrations(path: Path) -> list[Demonstration]:
    """The rows of a demonstrations file."""
    return [
        Demonstration(_prompt(row), _text(row, row.value("completion"), "completion"))
        for row, _ in _rows_of(path, ["demonstrations"])
    ]


def read_comparisons(path: Path, *, on_skip: Callable[[str], None] | None = None) -> list[Comparison]:
    """The comparisons of a preferences or transcripts file.

    A row of a preferences file that cannot be used is an error. There an answer may be empty only as an assistant
    message, or beside `"empty": true`, which say that a model answered with nothing; bare empty text is a gap.

    Transcripts are other people's data, to be taken as they are: a pair whose contexts differ, whose answer is empty or
    missing, or whose answers are equal is skipped, and `on_skip` gets one line that says where and why (default: a
    logged warning).
    """
    rows = _rows_of(path, ["preferences", "transcripts"])
    read = [_preference(row) if kind == "preferences" else _from_transcripts(row, on_skip) for row, kind in rows]
    return [comparison for comparison in read if comparison is not None]


def read_answers(path: Path) -> list[tuple[Prompt, Completion]]:
    """Every prompt with every answer of a completions or demonstrations file, one entry per answer, in order."""
    if detect(path) == "demonstrations":
        return [(row.prompt, Completion(row.completion)) for row in read_demonstrations(path)]
    return [(item.prompt, completion) for item in read_candidates(path) for completion in item.completions]


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


def parse_transcript(text: str) -> tuple[Message, ...]:
    r"""The turns of an HH transcript, `\n\nHuman: ...\n\nAssistant: ...`; contents are kept to the last space.

    Raises DataError when the text does not begin with a turn.
    """
    before, *turns = _TURN.split(text)
    if before or not turns:
        raise DataError(rf'not a transcript: {text[:40]!r}; it must begin with "\n\nHuman: "')
    return tuple(Message(_SPEAKERS[speaker], said) for speaker, said in zip(turns[::2], turns[1::2], strict=True))


def transcript(messages: Iterable[Message]) -> str:
    """The HH transcript of a conversation; the inverse of `parse_transcript`.

    Raises DataError for a role other than user and assistant.
    """
    names = {role: speaker for speaker, role in _SPEAKERS.items()}
    turns = []
    for message in messages:
        if message.role not in names:
            raise DataError(
                f'a transcript has no place for a "{message.role}" turn; leave it out or use a message list'
            )
        turns.append(f"\n\n{names[message.role]}: {message.content}")
    return "".join(turns)


def candidates_row(candidates: Candidates) -> dict[str, Any]:
    """The JSONL row of a prompt and its completions; what is not known is left out."""
    return {
        "prompt": candidates.prompt.as_json(),
        "completions": [_completion_fields(c) for c in candidates.completions],
    }


def comparison_row(comparison: Comparison) -> dict[str, Any]:
    """The JSONL row of a comparison: TRL's explicit-prompt preference, conversational when the prompt is.

    TRL wants answers as messages where the prompt is, and as text where it is text; a row whose answer of text is empty
    says that this is meant. `p` and `weight` are always written, so the row stands alone.
    """
    answers = {"chosen": comparison.chosen, "rejected": comparison.rejected}
    row: dict[str, Any] = {"prompt": comparison.prompt.as_json()}
    if isinstance(comparison.prompt.content, str):
        row |= answers
        if not all(text.strip() for text in answers.values()):
            row["empty"] = True
    else:
        row |= {side: [{"role": "assistant", "content": text}] for side, text in answers.items()}
    row |= {"p": comparison.p, "weight": comparison.weight}
    known = {"group": comparison.group, "margin": comparison.margin}
    return row | {key: value for key, value in known.items() if value is not None}


def _format_of(row: Row) -> Format:
    keys = row.fields.keys()
    if {"chosen", "rejected"} <= keys:
        return "preferences" if "prompt" in keys else "transcripts"
    if "prompt" in keys:
        if "completions" in keys:
            return "completions"
        if "completion" not in keys:
            return "prompts"
        if "label" not in keys:  # with a label the row is unpaired feedback: a bad answer is nothing to imitate
            return "demonstrations"
    found = ", ".join(f'"{key}"' for key in keys) or "none"
    known = '"prompt" alone or with "completions", "completion" or "chosen" and "rejected"; or "chosen" and "rejected"'
    raise row.error(f"no known format has the keys {found}", f"expected {known}")


def _rows_of(path: Path, accepted: Iterable[Format]) -> Iterator[tuple[Row, Format]]:
    found: Format | None = None
    for row in read_rows(path):
        found = found or _format_of(row)
        if found not in accepted:
            raise DataError(f"{path}: holds {found}; expected {' or '.join(accepted)}")
        yield row, found


def _prompt(row: Row) -> Prompt:
    value = row.value("prompt")
    if not isinstance(value, list):
        return Prompt(_text(row, value, "prompt"))
    messages = _messages(row, value, "prompt")
    last = f"prompt[{len(messages) - 1}]"
    if messages[-1].role == "assistant":
        raise row.error(
            "the last message is the assistant's", "end the prompt with the turn to be answered", f"{last}.role"
        )
    _text(row, messages[-1].content, f"{last}.content")
    return Prompt(messages)


def _messages(row: Row, value: list[Any], field: str) -> tuple[Message, ...]:
    if not value:
        raise row.error("an empty list", "write at least one message", field)
    messages = []
    for i, message in enumerate(value):
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise row.error("not a message", 'write {"role": ..., "content": ...}', f"{field}[{i}]")
        role = _text(row, message["role"], f"{field}[{i}].role")
        # Other tools write empty system turns; only the turn that is answered must say something.
        content = _text(row, message["content"], f"{field}[{i}].content", empty=True)
        messages.append(Message(role, content))
    return tuple(messages)


def _completion(row: Row, value: Any, field: str) -> Completion:
    if not isinstance(value, dict):
        return Completion(_text(row, value, field))
    if "text" not in value:
        raise row.error("missing", 'a completion is text or {"text": ...}', f"{field}.text")
    finish, tokens, model, id_ = (value.get(key) for key in ("finish", "tokens", "model", "id"))
    if finish is not None and finish not in get_args(Finish):
        raise row.error(f"got {finish!r}", f"one of {', '.join(get_args(Finish))}", f"{field}.finish")
    if tokens is not None and not (isinstance(tokens, list) and all(type(token) is int for token in tokens)):
        raise row.error("expected a list of token ids", "write whole numbers or leave it out", f"{field}.tokens")
    return Completion(
        text=_text(row, value["text"], f"{field}.text", empty=finish is not None),
        tokens=None if tokens is None else tuple(tokens),
        finish=cast("Finish | None", finish),
        model=None if model is None else _text(row, model, f"{field}.model"),
        id="" if id_ is None else _text(row, id_, f"{field}.id"),
    )


def _completion_fields(completion: Completion) -> dict[str, Any]:
    known = {"model": completion.model, "finish": completion.finish, "tokens": completion.tokens}
    known_id = {"id": completion.id} if completion.id else {}
    return {"text": completion.text} | known_id | {key: value for key, value in known.items() if value is not None}


def _preference(row: Row) -> Comparison:
    chosen, rejected = (_answer(row, side) for side in ("chosen", "rejected"))
    if chosen == rejected:
        raise row.error("chosen and rejected are equal", "a comparison needs two answers; remove the row", "rejected")
    group = row.fields.get("group")
    weight = _number(row, "weight", default=1.0)
    p = _number(row, "p", default=1.0)
    if not 0 <= p <= 1:
        raise row.error(f"got {p}", "a probability lies between 0 and 1", "p")
    if weight <= 0:
        raise row.error(f"got {weight}", "a weight is above 0; remove rows that shall not count", "weight")
    return Comparison(
        prompt=_prompt(row),
        chosen=chosen,
        rejected=rejected,
        p=p,
        weight=weight,
        group=None if group is None else _text(row, group, "group"),
        margin=None if row.fields.get("margin") is None else _number(row, "margin", default=0.0),
    )


def _answer(row: Row, side: str) -> str:
    value = row.value(side)
    if not isinstance(value, list):
        return _text(row, value, side, empty=row.fields.get("empty") is True)
    messages = _messages(row, value, side)
    if len(messages) != 1 or messages[0].role != "assistant":
        raise row.error("expected one assistant message", "the turns before it belong into the prompt", side)
    return messages[0].content


def _from_transcripts(row: Row, on_skip: Callable[[str], None] | None) -> Comparison | None:
    sides = []
    for side in ("chosen", "rejected"):
        text = _text(row, row.value(side), side)
        try:
            sides.append(parse_transcript(text))
        except DataError as error:
            raise row.error("cannot be read", str(error), side) from None
    chosen, rejected = sides
    reason = _unusable(chosen, rejected)
    if reason is not None:
        (on_skip or logging.getLogger(__name__).warning)(f"{row.path}:{row.line}: skipped: {reason}")
        return None
    return Comparison(Prompt(chosen[:-1]), chosen[-1].content, rejected[-1].content)


def _unusable(chosen: tuple[Message, ...], rejected: tuple[Message, ...]) -> str | None:
    if chosen[:-1] != rejected[:-1]:
        return "the contexts of chosen and rejected differ"
    if {chosen[-1].role, rejected[-1].role} != {"assistant"}:
        return "the last turn is not the assistant's"
    if len(chosen) < 2 or chosen[-2].role == "assistant":
        return "no user turn stands before the answer"
    if not chosen[-1].content.strip() or not rejected[-1].content.strip():
        return f"the {'rejected' if chosen[-1].content.strip() else 'chosen'} answer is empty"
    return "chosen and rejected are equal" if chosen[-1] == rejected[-1] else None


def _text(row: Row, value: Any, field: str, *, empty: bool = False) -> str:
    if not isinstance(value, str):
        raise row.error(f"expected text, got {json_kind(value)}", "write a string", field)
    if not empty and not value.strip():
        raise row.error("empty", "write some text or remove the row", field)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise row.error(r"half of a surrogate pair (\ud800-\udfff)", "write whole characters", field) from None
    return value


def _number(row: Row, field: str, *, default: float) -> float:
    value = row.fields.get(field)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise row.error(f"expected a finite number, got {json_kind(value)}", "write a number or leave it out", field)
    return float(value)
