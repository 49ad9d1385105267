"""The rows that stages train on and report on.

Comparisons and demonstrations are read, freed of what is held out and limited to their splits; a consensus is turned
into comparisons and into rows on its raters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tuneful.algorithms.kto import unpair
from tuneful.data.formats import Kind, kinds, read, read_candidates
from tuneful.data.splits import Purpose
from tuneful.errors import DataError
from tuneful.feedback.consensus import Consensus
from tuneful.feedback.export import rankings_of
from tuneful.feedback.judgments import read_judgments
from tuneful.pipeline.context import Context
from tuneful.records import Comparison, Completion, Demonstration, Prompt, Ranking, UnpairedPreference


def training_demonstrations(context: Context, reference: str, *, stage: str = "") -> list[Demonstration]:
    """Answers to imitate: of a demonstrations file, or the chosen sides of comparisons; none to dev or test prompts."""
    return _kept(context, reference, "demonstrations", ("reward", "rl"), purpose="train", stage=stage)


def training_comparisons(context: Context, reference: str, *, stage: str = "") -> list[Comparison]:
    """Comparisons to train on: those of the reward split, without any whose first turn is held out."""
    return _kept(context, reference, "comparisons", ("reward",), purpose="train", stage=stage)


def training_answers(context: Context, reference: str, *, stage: str = "") -> list[UnpairedPreference]:
    """Good and bad answers to train on, as `training_comparisons`: those of an unpaired file, or of comparisons."""
    if "unpaired" in kinds(context.file(reference, "comparisons.jsonl")):
        return _kept(context, reference, "unpaired", ("reward",), purpose="train", stage=stage)
    return unpair(training_comparisons(context, reference, stage=stage))


def training_rankings(context: Context, judgments: str, completions: str, *, stage: str = "") -> list[Ranking]:
    """Rankings to train on, as `training_comparisons`, each with its rater's slope beside a careful one's."""
    said = read_judgments(context.file(judgments, "judgments.jsonl"))
    offered = read_candidates(context.file(completions, "completions.jsonl"))
    kept = context.rows(rankings_of(said, offered), judgments, ("reward",), purpose="train", stage=stage)
    if not kept:
        raise DataError(f"{judgments}: no ranking in it is of a prompt in the reward split; change the shares")
    return kept


def training_completions(context: Context, reference: str, *, stage: str = "") -> list[tuple[Prompt, Completion]]:
    """Answers to be scored, of a generate stage or a file of completions; none to dev or test prompts."""
    file = "completions.jsonl"
    offered = _kept(context, reference, "candidates", ("reward", "rl"), purpose="train", stage=stage, file=file)
    return [(item.prompt, completion) for item in offered for completion in item.completions]


def held_out_comparisons(context: Context, reference: str, *, stage: str = "") -> list[Comparison]:
    """Comparisons to report on: all of a held-out file, else those of the test split."""
    mend = 'change the shares or list it in "held_out"'
    return _kept(context, reference, "comparisons", ("test",), purpose="report", stage=stage, mend=mend)


def rater_rows(found: Consensus) -> list[dict[str, Any]]:
    """How far each rater can be trusted, as reports hold it."""
    return [
        {"id": r.rater, "reliability": r.reliability, "interval": list(r.interval), "verdict": r.verdict}
        | {"num_judgments": r.num_judgments, "agreement": r.agreement}
        for r in found.raters
    ]


def _kept(
    context: Context,
    reference: str,
    kind: Kind,
    splits: Sequence[str],
    *,
    purpose: Purpose,
    stage: str,
    mend: str = "change the shares",
    file: str = "comparisons.jsonl",
) -> list[Any]:
    """Records of a file, or of what a stage left as `file`, whose prompts are in these splits; DataError for none."""
    found = read(context.file(reference, file), kind, on_skip=context.display.note)
    kept = context.rows(found, reference, splits, purpose=purpose, stage=stage)
    if not kept:
        raise DataError(f"{reference}: none of its {len(found)} {kind} is in the {' or '.join(splits)} split; {mend}")
    return kept
