"""`tuneful score`"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tuneful.cli.options import Device, Force, In, Json, Out, Reward
from tuneful.data.files import refuse_unwritable

if TYPE_CHECKING:
    from tuneful.data.row import Row

ANSWERS_AT_ONCE = 256
"""Answers scored between two steps of the progress bar."""


def command(
    reward: Reward, in_: In, out: Out, device: Device = None, force: Force = False, as_json: Json = False
) -> None:
    """The rows of a file of completions, or of one answer each, as they are, with a score added to every answer.

    Example: tuneful score --reward runs/demo/reward/model --in answers.jsonl --out scored.jsonl
    """
    import json

    refuse_unwritable(out, force=force)
    from tuneful.cli.progress import terminal_display
    from tuneful.data.files import read_rows, write_rows
    from tuneful.data.formats import read_answers
    from tuneful.rewards.load import load_reward
    from tuneful.rewards.reward import checked
    from tuneful.rewards.tables import reward_text

    answers = read_answers(in_)
    scorer = load_reward(reward_text(reward, where="--reward"))
    scores: list[float] = []
    with terminal_display() as display:
        display.stage("score", reward)
        for start in range(0, len(answers), ANSWERS_AT_ONCE):
            prompts, completions = zip(*answers[start : start + ANSWERS_AT_ONCE], strict=True)
            scores += checked(scorer, prompts, completions).tolist()
            display.step(len(scores), len(answers), {})
    following = iter(scores)
    write_rows(out, (_scored(row, following) for row in read_rows(in_)), force=force)
    mean = sum(scores) / len(scores)
    told = {"out": str(out), "answers": len(scores), "mean": mean}
    print(json.dumps(told) if as_json else f"{len(scores)} answers in {out}, mean score {mean:.3f}")


def _scored(row: Row, following: Iterator[float]) -> Mapping[str, Any]:
    """The fields of a row with the next scores: one on each of its completions, or one on the row."""
    if "completions" not in row.fields:
        return {**row.fields, "score": next(following)}
    offered = (c if isinstance(c, dict) else {"text": c} for c in row.fields["completions"])
    return {**row.fields, "completions": [{**c, "score": next(following)} for c in offered]}
