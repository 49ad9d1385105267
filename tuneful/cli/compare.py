"""`tuneful compare`: the learners of recipes side by side, over several seeds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tuneful.cli.options import Device, Force, Json, Out, Set


def command(
    recipes: Annotated[list[Path], typer.Argument(help="Recipes (TOML) whose learners are evaluated.")],
    out: Out,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds each recipe is run with.")] = 3,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The first of them.")] = 0,
    measure: Annotated[
        str | None, typer.Option(help="What they are compared by; without it, what the evaluations judge by.")
    ] = None,
    set_: Set = None,
    device: Device = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Run recipes with several seeds and compare what their learners reached: gain, KL, samples, seconds, memory.

    Each run goes to OUT/RECIPE/seed-N and is continued where it stopped; with more seeds, only the new ones are run.

    Example: tuneful compare recipes/demo_learners.toml --seeds 3 --out runs/learners
    """
    from tuneful.cli.progress import resumable, terminal_display
    from tuneful.demo.run import shipped_worlds
    from tuneful.pipeline.compare import compare_recipes

    with resumable(), terminal_display() as display:
        report = compare_recipes(
            recipes,
            out,
            seeds=range(seed, seed + seeds),
            measure=measure,
            overrides=set_ or (),
            worlds=shipped_worlds(),
            display=display,
            force=force,
        )
    if as_json:
        print(json.dumps(report))
        return
    print("\n".join(_lines(report)))
    print(f"the report is {out / 'report.html'}")


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    measure = report["measure"]
    widest = max(len(row["learner"]) for row in report["learners"])
    yield f"{'':{widest}}  gain in {measure:<22}      KL   samples  seconds  seeds"
    for row in report["learners"]:
        gain = row["difference"][measure]
        low, high = gain["interval"]
        told = f"{gain['mean']:+.3f} [{low:+.3f}, {high:+.3f}]"
        kl, samples, seconds = (_mean(row[name]) for name in ("kl", "samples", "seconds"))
        yield f"{row['learner']:<{widest}}  {told:<30} {kl:7.2f} {samples:9.0f} {seconds:8.1f} {len(row['seeds']):6}"


def _mean(number: Mapping[str, Any] | float) -> float:
    return number["mean"] if isinstance(number, Mapping) else number
