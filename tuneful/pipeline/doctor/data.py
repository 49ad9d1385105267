"""What a data file holds, and what in it would mislead a training or an evaluation."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tuneful.data import files, formats
from tuneful.data.overlap import Seen
from tuneful.data.row import Row, Skipped
from tuneful.data.splits import split, split_key
from tuneful.evaluation.intervals import bootstrap_mean, wins
from tuneful.evaluation.text_measures import num_words
from tuneful.pipeline.doctor.finding import Finding, found
from tuneful.records import Comparison, Prompt

LEANING = 0.1
"""A share this far from one half, and not by chance, leans to one side."""

RARE = 0.1
"""A label on less than this share of the answers is rare."""


def look_at_data(path: Path) -> Iterator[Finding]:
    """Format and counts, rows that repeat or say nothing, leanings, and what the splits get.

    Every row is read as training would read it.
    """
    kind = formats.detect(path)
    yield Finding("data", "format", kind)
    rows = list(files.read_rows(path))
    yield Finding("data", "rows", len(rows))
    repeated = len(rows) - len({json.dumps(dict(row.fields), sort_keys=True) for row in rows})
    mend = "leave them out; what stands twice counts twice" if repeated else ""
    yield found("data", "rows that repeat another", repeated, mend)
    if kind == "preferences":
        yield from _sides(rows)
    skipped: list[Skipped] = []
    prompts = formats.read(path, "prompts", on_skip=skipped.append)
    yield Finding("data", "prompts", len(set(prompts)))
    again = len(prompts) - len(set(prompts))
    mend = "no matter for answers to the same prompt, which stay in one split; else leave them out"
    yield found("data", "rows of a prompt seen before", again, mend if again else "")
    for given in formats.kinds(path):
        if given not in ("prompts", "answers"):
            records = formats.read(path, given, on_skip=skipped.append)
            yield Finding("data", given, len(records))
            if given == "comparisons":
                yield from _length_of_choices(records)
            if given == "unpaired" and records:
                yield from _labels([answer.label for answer in records])
    yield _skipped(list(dict.fromkeys(skipped)), any_left=bool(prompts))
    yield from _splits(list(dict.fromkeys(prompts)))


def look_at_leakage(path: Path, test: Path) -> Iterator[Finding]:
    """Which prompts to train on are also to be evaluated on."""
    evaluated = formats.read_prompts(test, on_skip=_quiet)
    prompts = formats.read_prompts(path, on_skip=_quiet)
    keys = {split_key(prompt) for prompt in evaluated}
    seen = Seen(evaluated)
    equal = [prompt for prompt in prompts if split_key(prompt) in keys]
    near = [prompt for prompt in prompts if split_key(prompt) not in keys and seen.overlaps(prompt)]
    yield Finding("leakage", f"prompts in {test}", len(evaluated))
    held_out = f'write held_out = ["{test}"] at the head of the recipe, which keeps them out of training'
    mend = f"{held_out}; the first: {_beginning(equal[0])}" if equal else ""
    yield found("leakage", f"prompts in {path} that are there, too", len(equal), mend, fails=True)
    mend = f"{held_out}; the first: {_beginning(near[0])}" if near else ""
    yield found("leakage", "prompts that differ in signs alone or share 13 words in a row with one", len(near), mend)


def _sides(rows: Sequence[Row]) -> Iterator[Finding]:
    """Rows whose sides are equal or say nothing, with the line of the first. Reading stops at some of them."""
    said = [(row.line, _said(row.fields.get("chosen")), _said(row.fields.get("rejected"))) for row in rows]
    equal = [line for line, chosen, rejected in said if chosen == rejected]
    mend = f"remove them, for there is nothing to choose; the first is in line {equal[0]}" if equal else ""
    yield found("data", "rows with two equal sides", len(equal), mend)
    empty = [line for line, *sides in said if not all(text.strip() for text in sides)]
    mend = f"remove them unless a model answered with nothing; the first is in line {empty[0]}" if empty else ""
    yield found("data", "rows with an empty side", len(empty), mend)


def _said(side: Any) -> str:
    """The text of a side; of messages, that of the last."""
    if isinstance(side, list):
        side = side[-1].get("content") if side and isinstance(side[-1], dict) else ""
    return side if isinstance(side, str) else ""


def _skipped(rows: Sequence[Skipped], *, any_left: bool) -> Finding:
    """What reading left out, by reason, with the place of the first."""
    reasons: Counter[str] = Counter()
    for row in rows:
        reasons[row.reason] += row.times
    mend = "; ".join(f"{count} because {reason}" for reason, count in reasons.most_common())
    if rows:
        mend = f"{mend}; the first is {rows[0].place}"
    elif not any_left:
        mend = "give a file whose rows hold prompts"
    return found("data", "rows skipped", reasons.total(), mend, fails=not any_left)


def _length_of_choices(comparisons: Sequence[Comparison]) -> Iterator[Finding]:
    """How often the longer side is chosen, ties one half. By chance it would be .5."""
    if len({comparison.prompt for comparison in comparisons}) < 2:
        return  # one prompt says nothing about the next
    longer = [num_words(c.chosen) - num_words(c.rejected) for c in comparisons]
    share = bootstrap_mean(wins(longer), [c.prompt.id for c in comparisons])
    mend = ""
    if _leans(share.mean, share.low, share.high):
        side = "longer" if share.mean > 0.5 else "shorter"
        mend = (
            f'the {side} side wins, so a reward model can be right by length alone; see "always the {side} answer" '
            "in its report, and choose pairs of like length or weigh length in the reward"
        )
    yield found("data", "share of pairs whose longer side is chosen", share.mean, mend)


def _labels(labels: Sequence[bool]) -> Iterator[Finding]:
    share = sum(labels) / len(labels)
    mend = "" if RARE <= share <= 1 - RARE else "gather more of the rarer label, or weigh it more"
    yield found("data", "share of answers that are good", share, mend)


def _splits(prompts: Sequence[Prompt]) -> Iterator[Finding]:
    """How many prompts each split gets by the usual shares, and near copies across what trains and what evaluates."""
    if not prompts:
        return
    sets = split(prompts)
    empty = [name for name, own in sets.items() if not own]
    mend = f"{' and '.join(empty)} would be empty; add prompts, or change [splits] in the recipe" if empty else ""
    counts = ", ".join(f"{name} {len(own)}" for name, own in sets.items())
    yield found("data", "prompts in each split, by the usual shares", counts, mend)
    seen = Seen([*sets["dev"], *sets["test"]])
    near = [prompt for name in ("reward", "rl") for prompt in sets[name] if seen.overlaps(prompt)]
    mend = (
        "near copies of prompts to evaluate on; a run leaves them out of training, another trainer must be told; "
        f"the first: {_beginning(near[0])}"
        if near
        else ""
    )
    yield found("data", "prompts to train on that say what one in dev or test says", len(near), mend)


def _leans(mean: float, low: float, high: float) -> bool:
    return abs(mean - 0.5) >= LEANING and not low <= 0.5 <= high


def _beginning(prompt: Prompt) -> str:
    text = " ".join(prompt.first_turn.split())
    return f"“{text[:60]}…”" if len(text) > 60 else f"“{text}”"


def _quiet(line: str) -> None:
    """Skipped rows are a finding of their own."""
