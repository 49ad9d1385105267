"""Judgments of two models' answers by a third: rows as AlpacaEval publishes them.

`{"instruction", "generator_1", "generator_2", "output_1", "output_2", "preference", "annotator"}`; `preference` is 1
when the first answer is better, 2 when the second is, what lies between is a probability, and 0 or nothing is a tie.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tuneful.data.fields import text_in
from tuneful.data.files import read_rows
from tuneful.data.row import Row, Skip, json_kind
from tuneful.records import Comparison, Prompt

KEYS = frozenset({"instruction", "output_1", "output_2", "preference"})
"""A row with all of these is an annotation."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """Two answers to one instruction, who gave them, and the probability that the second is better."""

    prompt: Prompt
    generators: tuple[str, str]
    outputs: tuple[str, str]
    second_wins: float
    annotator: str
    """Who judged; "" where the row does not say."""


def read_annotations(path: Path) -> list[Annotation]:
    """The rows of a file of annotations. Raises DataError naming file, line and field of a row that is none."""
    return [annotation(row) for row in read_rows(path)]


def annotation(row: Row) -> Annotation:
    """The annotation in one row."""
    return Annotation(
        prompt=_prompt(row),
        generators=(_generator(row, "generator_1"), _generator(row, "generator_2")),
        outputs=_outputs(row),
        second_wins=_second_wins(row),
        annotator=str(row.fields.get("annotator") or ""),
    )


def prompts(rows: Iterable[Row], _: Skip) -> Iterator[Prompt]:
    """The instruction of every row."""
    return (_prompt(row) for row in rows)


def comparisons(rows: Iterable[Row], on_skip: Skip) -> Iterator[Comparison]:
    """The answer that is more likely better against the other, with that likelihood as `p`; ties are skipped."""
    for row in rows:
        prompt, (first, second), second_wins = _prompt(row), _outputs(row), _second_wins(row)
        if second_wins == 0.5:
            on_skip(row.skipped("a tie"))
        elif first == second:
            on_skip(row.skipped("both answers are equal"))
        elif second_wins > 0.5:
            yield Comparison(prompt, second, first, p=second_wins)
        else:
            yield Comparison(prompt, first, second, p=1 - second_wins)


def _prompt(row: Row) -> Prompt:
    return Prompt.user(text_in(row, "instruction"))


def _generator(row: Row, field: str) -> str:
    """The name of a model, which no comparison needs, so that it is not among KEYS."""
    if field not in row.fields:
        raise row.error("missing", "name the model that answered", field)
    return text_in(row, field)


def _outputs(row: Row) -> tuple[str, str]:
    """Both answers; a model may say nothing."""
    return text_in(row, "output_1", empty=True), text_in(row, "output_2", empty=True)


def _second_wins(row: Row) -> float:
    preference = row.fields.get("preference")
    if preference is None:
        return 0.5
    if isinstance(preference, bool) or not isinstance(preference, int | float):
        raise row.error(
            f"expected a number, got {json_kind(preference)}", "1, 2, between, or 0 for a tie", "preference"
        )
    if preference == 0:
        return 0.5
    if not 1 <= preference <= 2:
        raise row.error(f"got {preference}", "1, 2, between, or 0 for a tie", "preference")
    return float(preference) - 1
