"""Files of prompts, completions, demonstrations and comparisons, in the shapes that people have them in.

| format         | one row                                                                                      |
|----------------|----------------------------------------------------------------------------------------------|
| prompts        | `{"prompt": str or messages}`                                                                |
| completions    | `{"prompt", "completions": [str or {"text", "model", "id", "finish", "tokens"}]}`            |
| demonstrations | `{"prompt", "completion"}`                                                                   |
| conversations  | `{"messages"}`, which end with the answer to imitate                                         |
| preferences    | `{"prompt", "chosen", "rejected"}` as in TRL, with `p`, `weight`, `group`, `margin` if known |
| implicit       | `{"chosen", "rejected"}` as in TRL, the prompt being what both begin with                    |
| unpaired       | `{"prompt", "completion", "label"}` as in TRL, with `p`, `weight` if known                   |
| transcripts    | `{"chosen", "rejected"}`, each a whole conversation as in Anthropic's HH data                |
| hhh            | `{"text_correct", "text_incorrect"}`, two transcripts                                        |
| trees          | `{"message_tree_id", "prompt": {"replies"}}` of Open-Assistant                               |
| annotations    | `{"instruction", "output_1", "output_2", "preference"}` of AlpacaEval                        |
| dialogues      | `{"dialogue", "summary"}` of DialogSum                                                       |
| tldr           | `{"info", "summaries", "choice"}`, OpenAI's comparisons of summaries                         |
| questions      | `{"turns"}` of MT-bench                                                                      |

The keys of the first row decide the format and every row must follow it. Keys that a format does not name are ignored.
What a reader leaves out of other people's data is told to `on_skip`, one line each with file, line and reason (default:
a logged warning).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final, Literal

from tuneful.data import annotations as verdicts  # the name is taken by __future__
from tuneful.data import (
    completions,
    demonstrations,
    preferences,
    questions,
    summaries,
    transcripts,
    trees,
    unpaired,
)
from tuneful.data.fields import prompt_in
from tuneful.data.files import read_rows
from tuneful.data.row import Row, Skip
from tuneful.errors import DataError
from tuneful.records import Candidates, Comparison, Completion, Demonstration, Prompt, UnpairedPreference

Kind = Literal["prompts", "candidates", "answers", "demonstrations", "comparisons", "unpaired"]
"""What can be read of a file."""

Reader = Callable[[Iterable[Row], Skip], Iterator[Any]]
"""From the rows of a file to records of one kind."""


@dataclass(frozen=True, slots=True)
class Format:
    """How rows of one shape are known, and what they give."""

    name: str
    keys: Set[str]
    """The keys that a row has at least."""
    gives: Mapping[Kind, Reader]
    """What can be read of it, and how."""
    told_by: Callable[[Row], bool] = lambda _: True
    """What tells it from another format with these keys."""


def _prompts(rows: Iterable[Row], _: Skip) -> Iterator[Prompt]:
    return map(prompt_in, rows)


def _preferred(compare: Reader, prompts: Reader | None = None) -> Mapping[Kind, Reader]:
    """Comparisons, their prompts, and their better sides to imitate."""

    def asked(rows: Iterable[Row], on_skip: Skip) -> Iterator[Prompt]:
        return (comparison.prompt for comparison in compare(rows, on_skip))

    def better(rows: Iterable[Row], on_skip: Skip) -> Iterator[Demonstration]:
        return (Demonstration(comparison.prompt, comparison.chosen) for comparison in compare(rows, on_skip))

    return {"comparisons": compare, "demonstrations": better, "prompts": prompts or asked}


def _imitated(imitate: Reader, prompts: Reader) -> Mapping[Kind, Reader]:
    """Demonstrations, their prompts, and their answers, one to a row."""

    def answers(rows: Iterable[Row], on_skip: Skip) -> Iterator[tuple[Prompt, Completion]]:
        return ((shown.prompt, Completion(shown.completion)) for shown in imitate(rows, on_skip))

    return {"demonstrations": imitate, "answers": answers, "prompts": prompts}


def _offered(rows: Iterable[Row], on_skip: Skip) -> Iterator[Candidates]:
    return iter(completions.with_ids(completions.candidates(rows, on_skip)))


def _all_offered(rows: Iterable[Row], on_skip: Skip) -> Iterator[tuple[Prompt, Completion]]:
    return ((item.prompt, completion) for item in _offered(rows, on_skip) for completion in item.completions)


def _judged(rows: Iterable[Row], on_skip: Skip) -> Iterator[tuple[Prompt, Completion]]:
    return ((answer.prompt, Completion(answer.completion)) for answer in unpaired.unpaired(rows, on_skip))


_TREES: Mapping[Kind, Reader] = {
    "candidates": trees.candidates,
    "comparisons": trees.comparisons,
    "demonstrations": trees.demonstrations,
    "prompts": trees.prompts,
}
_UNPAIRED: Mapping[Kind, Reader] = {
    "unpaired": unpaired.unpaired,
    "answers": _judged,
    "comparisons": unpaired.comparisons,
    "demonstrations": unpaired.good_answers,
    "prompts": _prompts,
}

FORMATS = (
    Format("judgments", {"item", "prompt", "completions", "rater"}, {}),  # read elsewhere, and no completions
    Format("annotations", verdicts.KEYS, _preferred(verdicts.comparisons, verdicts.prompts)),
    Format("trees", {"message_tree_id", "prompt"}, _TREES),
    Format("hhh", {*transcripts.HHH}, _preferred(partial(transcripts.comparisons, transcripts.HHH))),
    Format("tldr", {"info", "summaries", "choice"}, _preferred(summaries.comparisons)),
    Format("preferences", {"prompt", "chosen", "rejected"}, _preferred(preferences.comparisons, preferences.prompts)),
    Format(
        "transcripts",
        {*transcripts.HH},
        _preferred(partial(transcripts.comparisons, transcripts.HH)),
        told_by=transcripts.are_transcripts,
    ),
    Format("implicit", {"chosen", "rejected"}, _preferred(preferences.implicit_comparisons)),
    Format(
        "completions",
        {"prompt", "completions"},
        {"candidates": _offered, "answers": _all_offered, "prompts": _prompts},
    ),
    Format("unpaired", {"prompt", "completion", "label"}, _UNPAIRED),
    Format("demonstrations", {"prompt", "completion"}, _imitated(demonstrations.demonstrations, _prompts)),
    Format("conversations", {"messages"}, _imitated(demonstrations.last_turns, demonstrations.questions)),
    Format("prompts", {"prompt"}, {"prompts": _prompts}),
    Format("dialogues", {"dialogue"}, {"demonstrations": summaries.demonstrations, "prompts": summaries.dialogues}),
    Format("questions", {"turns"}, {"prompts": questions.prompts}),
)
"""Every format; of two that fit a row, the first."""

BARE: Final = ("completions", "prompts")
"""Formats whose rows are prompts, with completions or without."""


def detect(path: Path) -> str:
    """The name of a file's format, told from the keys of its first row."""
    return format_of(next(read_rows(path))).name


def kinds(path: Path) -> list[Kind]:
    """What can be read of a file."""
    return list(format_of(next(read_rows(path))).gives)


def read(path: Path, kind: Kind, *, on_skip: Skip | None = None) -> list[Any]:
    """All records of one kind in a file, in order.

    Raises DataError for a format that has none, and naming file, line and field for a row that cannot be read.
    """
    rows = read_rows(path)
    first = next(rows)
    found = format_of(first)
    if kind not in found.gives:
        raise not_expected(path, found, [known.name for known in FORMATS if kind in known.gives])
    return list(found.gives[kind](chain([first], rows), on_skip or logging.getLogger(__name__).warning))


def read_prompts(path: Path, *, on_skip: Skip | None = None) -> list[Prompt]:
    """The prompts of a file of any format, each once, in order of first appearance."""
    return list(dict.fromkeys(read(path, "prompts", on_skip=on_skip)))


def read_candidates(path: Path, *, bare: bool = False, on_skip: Skip | None = None) -> list[Candidates]:
    """Prompts with the completions offered for them; those without an id get one from their content (`with_ids`).

    bare: a prompt may have none, as what is written to it does not need any (demonstrations).
    """
    if bare and detect(path) in BARE:
        return completions.with_ids(completions.candidates(read_rows(path), lambda _: None, bare=True))
    return read(path, "candidates", on_skip=on_skip)


def read_demonstrations(path: Path, *, on_skip: Skip | None = None) -> list[Demonstration]:
    """Answers to imitate. Of comparisons these are the better sides, of unpaired answers the good ones."""
    return read(path, "demonstrations", on_skip=on_skip)


def read_comparisons(path: Path, *, on_skip: Skip | None = None) -> list[Comparison]:
    """Pairs of answers to one prompt, the better first.

    In one's own preferences a row that cannot be used is an error; other people's data are taken as they are, and what
    cannot be used is skipped.
    """
    return read(path, "comparisons", on_skip=on_skip)


def read_unpaired(path: Path, *, on_skip: Skip | None = None) -> list[UnpairedPreference]:
    """Single answers and whether they are good."""
    return read(path, "unpaired", on_skip=on_skip)


def read_answers(path: Path) -> list[tuple[Prompt, Completion]]:
    """Every prompt with every answer of a file whose rows hold one answer, or `completions`; one entry per answer."""
    return read(path, "answers")


def not_expected(path: Path, found: Format, able: Sequence[str]) -> DataError:
    """The error on a file of another format than those that would do."""
    expected = " or ".join(filter(None, (", ".join(able[:-1]), able[-1])))
    return DataError(f"{path}: holds {found.name}; expected {expected}")


def format_of(row: Row) -> Format:
    """The format of the file whose first row this is. Raises DataError, naming those there are, for another."""
    for known in FORMATS:
        if known.keys <= row.fields.keys() and known.told_by(row):
            return known
    found = ", ".join(f'"{key}"' for key in row.fields) or "none"
    listed = "; ".join(f"{known.name}: {', '.join(sorted(known.keys))}" for known in FORMATS if known.gives)
    raise row.error(f"no known format has the keys {found}", f"known formats and their keys: {listed}")
