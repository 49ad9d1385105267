"""Learners side by side: recipes run with several seeds, and what their learners reached read from the runs.

A learner is a stage that trains and that an `evaluate` stage judges, or a `best_of_n` stage, which judges itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from statistics import mean
from typing import Any

from tuneful.algorithms.on_policy import OnPolicyConfig
from tuneful.errors import ConfigError, did_you_mean
from tuneful.evaluation.comparison import Measure
from tuneful.evaluation.learners import Learned, Point, compare_learners
from tuneful.evaluation.report import write_json, write_report
from tuneful.pipeline import inputs
from tuneful.pipeline.context import Context, Display, Silent, World
from tuneful.pipeline.recipe import ALGORITHMS, Recipe, Stage, load_recipe
from tuneful.pipeline.run import run_recipe
from tuneful.records import Prompt
from tuneful.runs.lineage import StageRecord, read_stage
from tuneful.runs.logs import read_log


@dataclass(frozen=True, slots=True)
class Entry:
    """A learner of a recipe: the stage that trains, and the one whose report says what it reached."""

    learner: Stage
    judge: Stage


def compare_recipes(
    paths: Sequence[Path],
    out: Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    measure: str | None = None,
    overrides: Iterable[str] = (),
    worlds: Mapping[str, World] | None = None,
    display: Display | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Run every recipe with every seed, each into `out/RECIPE/seed-N`, and write `out/report.json` and `report.html`.

    A run that is done is not repeated, one that was broken off goes on, so another seed may be added later. measure:
    what the learners are ranked by and drawn in; without it what the evaluations judge by. Returns the report:
    {"measure", "learners": rows of compare_learners}. Raises ConfigError, before anything is run, for a recipe without
    a learner, for two recipes of one name, and where the measure is not named or not measured; and what run_recipe
    raises.
    """
    recipes = {path: [load_recipe(path, overrides, seed=seed) for seed in seeds] for path in paths}
    if len({path.stem for path in paths}) < len(paths):
        raise ConfigError(f"two recipes have one name, of {', '.join(map(str, paths))}; rename one")
    for path, of_seeds in recipes.items():
        _refuse_one_seed_for_all(path, of_seeds)
    entries = {path: _entries(of_seeds[0]) for path, of_seeds in recipes.items()}
    measure = _measure(entries, measure)
    runs = []
    for path, of_seeds in recipes.items():
        title = f"{path.stem}: " if len(paths) > 1 else ""
        for recipe in of_seeds:
            folder = out / path.stem / f"seed-{recipe.seed}"
            run_recipe(recipe, folder, worlds=worlds, display=display, force=force)
            context = Context.of(recipe, folder, worlds or {}, Silent())
            found = [_learned(entry, context, folder, measure) for entry in entries[path]]
            runs += [replace(one, learner=f"{title}{one.learner}") for one in found]
    report = {"measure": measure, "learners": compare_learners(runs, measure)}
    write_json(out / "report.json", report)
    write_report(out / "report.html", report, title=" and ".join(path.stem for path in paths))
    return report


def _refuse_one_seed_for_all(path: Path, of_seeds: Sequence[Recipe]) -> None:
    """ConfigError for a stage that trains alike in every run, whose interval over seeds would say nothing."""
    for stages in zip(*(recipe.stages for recipe in of_seeds), strict=True):
        chosen = {getattr(stage.config, "seed", number) for number, stage in enumerate(stages)}
        if len(chosen) < len(of_seeds):
            raise ConfigError(
                f"{path}: stage {stages[0].name} sets seed = {stages[0].config.seed}, so that it would train alike "
                "with every seed; leave it out, or ask for one seed"
            )


def _entries(recipe: Recipe) -> list[Entry]:
    """The learners of a recipe, in its order; of one that is judged twice the last judge. ConfigError without any."""
    stages = {f"@{stage.name}": stage for stage in recipe.stages}
    found: dict[str, Entry] = {}
    for stage in recipe.stages:
        if isinstance(stage.inputs, inputs.BestOfNInputs):
            found[stage.name] = Entry(stage, stage)
        elif isinstance(stage.inputs, inputs.EvaluateInputs):
            judged = stages.get(stage.inputs.after)
            if judged is not None and judged.kind in ALGORITHMS:
                found[judged.name] = Entry(judged, stage)
    if not found:
        raise ConfigError(
            f"{recipe.source}: nothing to compare: it has no evaluate stage with after = the stage of a learner, and "
            "no best_of_n"
        )
    return list(found.values())


def _measure(entries: Mapping[Path, Sequence[Entry]], asked: str | None) -> str:
    """The measure that learners are compared by, which every judge must know."""
    judges = {f"{path}: stage {entry.judge.name}": entry.judge for path, of in entries.items() for entry in of}
    if asked is None:
        asked = _judged_by(judges.values())
    for place, judge in judges.items():
        known = inputs.measured(judge.inputs)
        if asked not in known:
            raise ConfigError(f'{place}: nothing called "{asked}" is measured there{did_you_mean(asked, known)}')
    return asked


def _judged_by(judges: Iterable[Stage]) -> str:
    """What all the evaluations judge by; ConfigError unless that is one measure."""
    named = {judge.inputs.win_judge for judge in judges if isinstance(judge.inputs, inputs.EvaluateInputs)}
    measures = [name for name in named if name is not None]
    if len(named) != 1 or not measures or measures[0] == "people":
        told = ", ".join(sorted(map(str, named)))
        raise ConfigError(f"the evaluations judge by {told or 'nothing, for there are none'}; say --measure NAME")
    return str(measures[0])


def _learned(entry: Entry, context: Context, run: Path, measure: str) -> Learned:
    """What a learner reached, as its run has it."""
    record, judged = _record(run / entry.learner.name), _record(run / entry.judge.name)
    facts: dict[str, Any] = {
        "learner": entry.learner.name,
        "algorithm": entry.learner.kind,
        "seed": context.seed,
        "memory": _memory(record.manifest),
    }
    if entry.learner is entry.judge:
        stages = json.loads((run / "run.json").read_text(encoding="utf-8"))["seconds"]
        first, last = judged.report["best_of_n"][0], judged.report["best_of_n"][-1]
        drawn, each = record.manifest["num_prompts"], stages[entry.learner.name] / last["n"]
        points = [
            Point(of["n"], of["measures"][measure]["mean"], of["kl"], of["n"] * drawn, of["n"] * each)
            for of in judged.report["best_of_n"]
        ]
        return Learned(
            before=first["measures"],
            difference=last["differences"],
            kl=last["kl"],
            samples=last["n"] * drawn,
            seconds=stages[entry.learner.name],
            curve=tuple(points),
            **facts,
        )
    differences = judged.report["difference"]
    config = entry.learner.config
    per_step = config.drawn_per_step if isinstance(config, OnPolicyConfig) else 0
    steps = [row for row in read_log(record.folder / "metrics.jsonl") if row["kind"] == "train"]
    return Learned(
        before={name: judged.report["before"][name] for name in differences},
        difference=differences,
        kl=judged.report["kl"]["mean"],
        samples=per_step * len(steps),
        seconds=sum(row["seconds"] for row in steps),
        curve=tuple(_curve(record, _of_world(entry.judge, context, measure), measure, per_step)),
        **facts,
    )


def _record(folder: Path) -> StageRecord:
    found = read_stage(folder)
    assert found is not None  # the run that made it is done
    return found


def _memory(manifest: Mapping[str, Any]) -> int | None:
    """Bytes that the stage held at most above those that the process held when it began."""
    noted = manifest.get("memory", {})
    most, before = noted.get("resident"), noted.get("resident_before")
    return None if most is None or before is None else max(0, most - before)


def _of_world(judge: Stage, context: Context, measure: str) -> Measure | None:
    """What a world calls so. Of other measures only those have a curve that the learner's own evaluations name."""
    named = [name for name in judge.inputs.measures if name.partition(":")[2] == measure]
    return context.measure(named[0]) if named else None


def _curve(record: StageRecord, measured: Measure | None, measure: str, per_step: int) -> Iterator[Point]:
    """The evaluations during training. The learner was never shown a measure of the world: here it is taken of the
    answers that it gave to dev prompts."""
    rows = list(read_log(record.folder / "metrics.jsonl"))
    trained = [row for row in rows if row["kind"] == "train"]
    until = dict(zip((row["step"] for row in trained), accumulate(row["seconds"] for row in trained), strict=True))
    values: dict[int, list[float]] = {}
    if measured is not None:
        for answer in read_log(record.folder / "samples.jsonl"):
            value = measured(Prompt(answer["prompt"]), answer["completion"])
            values.setdefault(answer["step"], []).append(value)
    for row in rows:
        step = row["step"]
        seen = mean(values[step]) if step in values else row.get(measure)
        if row["kind"] == "evaluation" and seen is not None and "kl" in row:
            yield Point(step, float(seen), row["kl"], per_step * step, until.get(step, 0.0))
