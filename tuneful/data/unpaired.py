"""Unpaired preferences as in TRL's KTO: `{"prompt", "completion", "label"}`, an answer and whether it is good."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product

from tuneful.data.fields import answer_in, prompt_in
from tuneful.data.row import Row, Skip, Skipped, json_kind
from tuneful.records import Comparison, Demonstration, Prompt, UnpairedPreference


def unpaired(rows: Iterable[Row], _: Skip) -> Iterator[UnpairedPreference]:
    """The rows as they are."""
    for row in rows:
        label = row.value("label")
        if not isinstance(label, bool):
            raise row.error(f"expected true or false, got {json_kind(label)}", "true for a good answer", "label")
        yield UnpairedPreference(prompt_in(row), answer_in(row, "completion", empty=True), label)


def good_answers(rows: Iterable[Row], on_skip: Skip) -> Iterator[Demonstration]:
    """The answers that are good, to imitate; empty ones are not."""
    for row in unpaired(rows, on_skip):
        if row.label and row.completion.strip():
            yield Demonstration(row.prompt, row.completion)


def comparisons(rows: Iterable[Row], on_skip: Skip) -> Iterator[Comparison]:
    """Every good answer against every bad one to the same prompt, the pairs of a prompt sharing weight 1.

    Prompts whose answers are all good or all bad give no pair; `on_skip` is told how many they are.
    """
    held = list(rows)
    answers: dict[Prompt, tuple[dict[str, None], dict[str, None]]] = {}
    for answer in unpaired(held, on_skip):
        bad_and_good = answers.setdefault(answer.prompt, ({}, {}))
        bad_and_good[answer.label][answer.completion] = None
    alone = 0
    for prompt, (bad, good) in answers.items():
        pairs = [(better, worse) for better, worse in product(good, bad) if better != worse]
        alone += not pairs
        for better, worse in pairs:
            yield Comparison(prompt, better, worse, weight=1 / len(pairs))
    if alone:
        on_skip(Skipped(str(held[0].path), f"{alone} prompts have no good and bad answer to compare"))
