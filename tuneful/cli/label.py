"""`tuneful label`: judgments in files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuneful.cli.options import Force, In, Json, Out, Seed
from tuneful.data.files import refuse_unwritable

app = typer.Typer(help="Judgments: simulate them, find their consensus, export pairs.", no_args_is_help=True)

Judgments = Annotated[Path, typer.Option("--judgments", help="Judgments file (JSONL).")]


@app.command("simulate")
def simulate_command(
    in_: In,
    out: Out,
    raters_per_item: Annotated[int, typer.Option(help="Rankings of each prompt's completions.")] = 3,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Rankings by the demo world's labelers of completions to its prompts.

    Example: tuneful label simulate --in runs/demo/samples/completions.jsonl --out judgments.jsonl
    """
    refuse_unwritable(out, force=force)
    from tuneful.data.formats import read_candidates
    from tuneful.demo.labelers import simulate
    from tuneful.feedback.judgments import write_judgments

    judgments = simulate(read_candidates(in_), labelers_per_item=raters_per_item, seed=seed).judgments
    write_judgments(out, judgments, force=force)
    print(f"{len(judgments)} judgments in {out}")


@app.command("consensus")
def consensus_command(judgments: Judgments, as_json: Json = False) -> None:
    """What the raters agree on, and how far each can be trusted.

    Example: tuneful label consensus --judgments runs/demo/labels/judgments.jsonl
    """
    import json

    from tuneful.feedback.consensus import consensus
    from tuneful.feedback.judgments import read_judgments
    from tuneful.pipeline.rows import rater_rows

    found = consensus(read_judgments(judgments))
    if as_json:
        print(json.dumps({"alpha": found.alpha, "pairs": len(found.pairs), "raters": rater_rows(found)}))
        return
    for rater in found.raters:
        low, high = rater.interval
        slope = f"{rater.reliability:6.2f} [{low:5.2f}, {high:5.2f}]"
        print(f"{rater.rater:<14} {slope}  {rater.verdict:<8} {rater.num_judgments:5d} judgments")
    alpha = f"undefined: {found.alpha_reason}" if found.alpha is None else f"{found.alpha:.3f}"
    print(f"{len(found.pairs)} pairs, Krippendorff's alpha {alpha}")


@app.command("export")
def export_command(judgments: Judgments, in_: In, out: Out, force: Force = False) -> None:
    """Comparisons (prompt, chosen, rejected, p, weight) for this or any other trainer.

    Example: tuneful label export --judgments judgments.jsonl --in completions.jsonl --out comparisons.jsonl
    """
    refuse_unwritable(out, force=force)
    from tuneful.data.files import write_rows
    from tuneful.data.formats import read_candidates
    from tuneful.data.preferences import comparison_row
    from tuneful.feedback.consensus import consensus
    from tuneful.feedback.judgments import read_judgments
    from tuneful.pipeline.rows import agreed_comparisons

    comparisons = agreed_comparisons(consensus(read_judgments(judgments)), read_candidates(in_))
    write_rows(out, map(comparison_row, comparisons), force=force)
    print(f"{len(comparisons)} comparisons in {out}")
