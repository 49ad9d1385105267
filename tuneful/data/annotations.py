"""Judgments of two models' answers by a third: rows as AlpacaEval publishes them.

`{"instruction", "generator_1", "generator_2", "output_1", "output_2", "preference", "annotator"}`; `preference` is 1
when the first answer is better, 2 when the second is, what lies between is a probability, and 0 or nothing is a tie.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tuneful.data.jsonl import Row, json_kind, read_rows
from tuneful.records import Prompt

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


def read_annotations(path: Path) -> list[Annotation]:
    """The rows of a file of annotations. Raises DataError naming file, line and field of a row that is none."""
    return [annotation(row) for row in read_rows(path)]


def annotation(row: Row) -> Annotation:
    """The annotation in one row."""

    def text(field: str, *, empty: bool = False) -> str:
        value = row.value(field)
        if not isinstance(value, str):
            raise row.error(f"expected text, got {json_kind(value)}", "write a string", field)
        if not empty and not value.strip():
            raise row.error("empty", "write some text or remove the row", field)
        return value

    return Annotation(
        prompt=Prompt.user(text("instruction")),
        generators=(text("generator_1"), text("generator_2")),
        outputs=(text("output_1", empty=True), text("output_2", empty=True)),  # a model may answer with nothing
        second_wins=_second_wins(row),
        annotator=str(row.fields.get("annotator", "")),
    )


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
