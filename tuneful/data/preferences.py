"""Preferences as TRL writes them: two answers to one prompt, which stands apart or begins both of them.

Apart: `{"prompt", "chosen", "rejected"}`. Begun: `{"chosen", "rejected"}`, each a whole conversation or text, where the
prompt is what both have in common. Some data sets write the latter with a `prompt` beside it that repeats a turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import takewhile
from typing import Any

from tuneful.data.fields import answer_in, messages_of, number_in, prompt_in, text_in, text_of
from tuneful.data.row import Row, Skip
from tuneful.data.transcripts import unusable
from tuneful.records import Comparison, Prompt


def comparisons(rows: Iterable[Row], on_skip: Skip) -> Iterator[Comparison]:
    """The pairs of rows with a prompt of their own; a row that cannot be used is an error.

    An answer may be empty only as an assistant message, or beside `"empty": true`, which say that a model answered with
    nothing; bare empty text is a gap.
    """
    for row in rows:
        if _repeats_prompt(row):
            yield from implicit_comparisons([row], on_skip)
        else:
            yield _comparison(
                row, prompt_in(row), answer_in(row, "chosen", empty=True), answer_in(row, "rejected", empty=True)
            )


def prompts(rows: Iterable[Row], on_skip: Skip) -> Iterator[Prompt]:
    """The prompts of rows with a prompt of their own, whatever the answers are."""
    for row in rows:
        if _repeats_prompt(row):
            yield from (comparison.prompt for comparison in implicit_comparisons([row], on_skip))
        else:
            yield prompt_in(row)


def implicit_comparisons(rows: Iterable[Row], on_skip: Skip) -> Iterator[Comparison]:
    """The pairs of rows whose two sides begin with the prompt; one without a prompt or two answers is skipped.

    The cut is TRL's (`trl.data_utils.extract_prompt`): before the first message that differs, or before the first
    letter that does, the blank in front of it included.
    """
    for row in rows:
        if isinstance(row.value("chosen"), list):
            chosen, rejected = (messages_of(row, row.value(side), side) for side in ("chosen", "rejected"))
            reason = unusable(chosen, rejected)
            if reason is None:
                yield _comparison(row, Prompt(chosen[:-1]), chosen[-1].content, rejected[-1].content)
        else:
            better, worse = text_in(row, "chosen"), text_in(row, "rejected")
            cut = _first_difference(better, worse)
            reason = _no_pair(better, worse, cut)
            if reason is None:
                yield _comparison(row, Prompt(better[:cut]), better[cut:], worse[cut:])
        if reason is not None:
            on_skip(row.skipped(reason))


def comparison_row(comparison: Comparison) -> dict[str, Any]:
    """The row of a comparison: TRL's explicit-prompt preference, conversational when the prompt is.

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


def _comparison(row: Row, prompt: Prompt, chosen: str, rejected: str) -> Comparison:
    """The comparison of two answers with what the row knows of it: p, weight, group, margin."""
    if chosen == rejected:
        raise row.error("chosen and rejected are equal", "a comparison needs two answers; remove the row", "rejected")
    group = row.fields.get("group")
    weight = number_in(row, "weight", default=1.0)
    p = number_in(row, "p", default=1.0)
    if not 0 <= p <= 1:
        raise row.error(f"got {p}", "a probability lies between 0 and 1", "p")
    if weight <= 0:
        raise row.error(f"got {weight}", "a weight is above 0; remove rows that shall not count", "weight")
    return Comparison(
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        p=p,
        weight=weight,
        group=None if group is None else text_of(row, group, "group"),
        margin=None if row.fields.get("margin") is None else number_in(row, "margin", default=0.0),
    )


def _repeats_prompt(row: Row) -> bool:
    """Whether both sides are conversations beside a prompt of plain text, which then only repeats a turn of them."""
    sides = [row.fields.get(side) for side in ("chosen", "rejected")]
    return isinstance(row.fields.get("prompt"), str) and all(isinstance(side, list) and len(side) > 1 for side in sides)


def _first_difference(chosen: str, rejected: str) -> int:
    cut = sum(1 for _ in takewhile(lambda letters: letters[0] == letters[1], zip(chosen, rejected, strict=False)))
    return cut - 1 if chosen[:cut].endswith(" ") else cut


def _no_pair(chosen: str, rejected: str, cut: int) -> str | None:
    """Why two texts that differ from `cut` on are no prompt with two answers; None when they are."""
    if chosen == rejected:
        return "chosen and rejected are equal"
    if not chosen[:cut].strip():
        return "chosen and rejected do not begin alike, so there is no prompt"
    if not chosen[cut:].strip() or not rejected[cut:].strip():
        return f"{'rejected' if chosen[cut:].strip() else 'chosen'} says nothing after what both begin with"
    return None
