"""Unpaired preferences as in TRL's KTO: `{"prompt", "completion", "label"}`, an answer and whether it is good."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any

from tuneful.data.fields import answer_in, number_in, prompt_in
from tuneful.data.row import Row, Skip, json_kind
from tuneful.records import Comparison, Demonstration, Prompt, UnpairedPreference


def unpaired(rows: Iterable[Row], _: Skip) -> Iterator[UnpairedPreference]:
    """The rows as they are, with `p` and `weight` where they say so."""
    for row in rows:
        label = row.value("label")
        if not isinstance(label, bool):
            raise row.error(f"expected true or false, got {json_kind(label)}", "true for a good answer", "label")
        weight = number_in(row, "weight", default=1.0)
        if weight <= 0:
            raise row.error(f"got {weight}", "a weight is above 0; remove rows that shall not count", "weight")
        yield UnpairedPreference(
            prompt_in(row), answer_in(row, "completion", empty=True), label, p=_probability(row, label), weight=weight
        )


def unpaired_row(answer: UnpairedPreference) -> dict[str, Any]:
    """The row of an answer, conversational when its prompt is; a row whose answer of text is empty says that this is
    meant. `p` is written where it is known, `weight` where it is not 1."""
    row: dict[str, Any] = {"prompt": answer.prompt.as_json()}
    if isinstance(answer.prompt.content, str):
        row["completion"] = answer.completion
        if not answer.completion.strip():
            row["empty"] = True
    else:
        row["completion"] = [{"role": "assistant", "content": answer.completion}]
    row |= {"label": answer.label}
    row |= {} if answer.p is None else {"p": answer.p}
    return row | ({} if answer.weight == 1 else {"weight": answer.weight})


def _probability(row: Row, label: bool) -> float | None:
    """The probability that the answer is good, which may not contradict its label."""
    if row.fields.get("p") is None:
        return None
    p = number_in(row, "p", default=1.0)
    if not 0 <= p <= 1:
        raise row.error(f"got {p}", "a probability lies between 0 and 1", "p")
    if p != 0.5 and label != (p > 0.5):
        said = "true" if label else "false"
        raise row.error(f"got {p} beside the label {said}", "p is the probability that the answer is good", "p")
    return p


def good_answers(rows: Iterable[Row], on_skip: Skip) -> Iterator[Demonstration]:
    """The answers that are good, to imitate; empty ones are not."""
    for row in unpaired(rows, on_skip):
        if row.label and row.completion.strip():
            yield Demonstration(row.prompt, row.completion)


def comparisons(rows: Iterable[Row], on_skip: Skip) -> Iterator[Comparison]:
    """Every good answer against every bad one to the same prompt, the pairs of a prompt sharing weight 1.

    Prompts whose answers are all good or all bad give no pair, nor does an answer that is called both with itself;
    `on_skip` is told of the first of either and how many they are.
    """
    held = list(rows)
    answers: dict[Prompt, tuple[dict[str, Row], dict[str, Row]]] = {}
    for row, answer in zip(held, unpaired(held, on_skip), strict=True):
        bad_and_good = answers.setdefault(answer.prompt, ({}, {}))
        bad_and_good[answer.label].setdefault(answer.completion, row)
    one_sided, both = [], []
    for prompt, (bad, good) in answers.items():
        if not bad or not good:
            one_sided.append(next(iter((bad or good).values())))
        both += [max(row, bad[text], key=lambda said: said.line) for text, row in good.items() if text in bad]
        pairs = [(better, worse) for better, worse in product(good, bad) if better != worse]
        for better, worse in pairs:
            yield Comparison(prompt, better, worse, weight=1 / len(pairs))
    if one_sided:
        on_skip(one_sided[0].skipped("the answers to its prompt are all good or all bad", len(one_sided)))
    if both:
        on_skip(both[0].skipped("the same answer is called good and bad", len(both)))
