"""The demo: its world handed to the pipeline, and its report."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tuneful.demo.base import base_model
from tuneful.demo.grammar import prompts
from tuneful.demo.labelers import GUIDE, simulate
from tuneful.demo.report import MEASURES, demo_report
from tuneful.demo.small import small_world
from tuneful.evaluation.report import write_json, write_report
from tuneful.pipeline.context import Display, Labeling, Silent, World
from tuneful.pipeline.recipe import Recipe
from tuneful.pipeline.run import run_recipe
from tuneful.records import Candidates
from tuneful.runs.logs import read_log
from tuneful.runs.trackers import refuse_missing


def demo_world() -> World:
    """What `demo:name` means in a recipe."""
    return World(
        models={"base": base_model},
        prompts={"prompts": lambda: prompts(seed=0)},
        raters={"labelers": _label},
        measures=MEASURES,
    )


def shipped_worlds() -> dict[str, World]:
    """The worlds that recipes can name."""
    return {"demo": demo_world(), "small": small_world()}


def run_demo(
    recipe: Recipe,
    out: Path,
    *,
    display: Display | None = None,
    track: Sequence[str] = (),
    force: bool = False,
) -> dict[str, Any]:
    """Run the demo into `out` and write its report; the report."""
    refuse_missing(track)  # before minutes are spent on the base model
    shown = display or Silent()
    started = time.perf_counter()
    shown.stage("base", "sft")
    base_model(shown.step)
    base_seconds = time.perf_counter() - started
    seconds = run_recipe(recipe, out, worlds={"demo": demo_world()}, display=display, track=track, force=force)
    known = json.loads((out / "report.json").read_text(encoding="utf-8"))["seconds"]
    started = time.perf_counter()
    report = demo_report(out, recipe.seed)
    seconds = {"base": base_seconds, **seconds, "report": time.perf_counter() - started}
    if "base" in known:
        seconds |= {name: known[name] for name in ("base", "report")}  # a finished demo, looked at again
    report["seconds"] = seconds | {"total": sum(seconds.values())}
    write_json(out / "report.json", report)
    write_report(
        out / "report.html",
        report,
        metrics=list(read_log(out / "ppo" / "metrics.jsonl")),
        samples=report.pop("samples"),
        title="tuneful demo",
    )
    return report


def _label(items: Sequence[Candidates], raters_per_item: int, seed: int, round_number: int) -> Labeling:
    simulation = simulate(items, labelers_per_item=raters_per_item, seed=seed, round_number=round_number)
    return Labeling(simulation.judgments, dict(simulation.kinds), instructions=GUIDE)
