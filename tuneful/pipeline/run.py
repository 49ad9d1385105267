"""A pipeline: the stages of a recipe one after the other, each in its own run directory; done ones are skipped."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tuneful.data.sources import local, resolve
from tuneful.engines import ranks
from tuneful.errors import ConfigError, DataError, RunError, TunefulError
from tuneful.evaluation.report import write_json, write_report
from tuneful.pipeline.context import Context, Display, Silent, World, data_hashes
from tuneful.pipeline.families import refuse_unfit
from tuneful.pipeline.live import LiveReport
from tuneful.pipeline.recipe import Recipe, Stage
from tuneful.pipeline.stages import WITHOUT_MODELS, run_stage
from tuneful.runs.directory import RunDirectory
from tuneful.runs.lineage import read_stage
from tuneful.runs.logs import read_log
from tuneful.runs.manifest import file_hash, tree_hash
from tuneful.runs.trackers import Mirror

ENDED, FAILED = "", "!"
"""What the ranks above 0 are told in place of a stage's name: that there is none left, or that rank 0 has an error."""


def run_recipe(
    recipe: Recipe,
    out: Path,
    *,
    worlds: Mapping[str, World] | None = None,
    display: Display | None = None,
    track: Sequence[str] = (),
    force: bool = False,
) -> dict[str, float]:
    """Run `recipe` into `out`, continuing where an earlier run of the same recipe stopped; seconds per stage.

    While it runs, `out/report.html` and that of a stage that trains show how far it is. Among several ranks all call
    it; rank 0 writes and speaks, the others return {}, or end after it where it ends by an error between stages.
    worlds: what `world:name` in the recipe refers to. track: trackers that are shown what is measured; ConfigError,
    before anything is done, for one that is not installed. TunefulError, likewise, for a name that no world offers, for
    a file, model or reward that is not to be found and that a stage names which is not done, and for a setting of such
    a stage that its model's family does not allow. Raises RunError when
    `out` holds a run of another recipe, or an unfinished one and a file or model that it read has changed since.
    """
    if ranks.rank() > 0:
        _follow(recipe, out, worlds or {})
        return {}
    with _Followers() as followers:
        return _lead(recipe, out, worlds or {}, display or Silent(), track, followers, force=force)


def _lead(
    recipe: Recipe,
    out: Path,
    worlds: Mapping[str, World],
    display: Display,
    track: Sequence[str],
    followers: _Followers,
    *,
    force: bool,
) -> dict[str, float]:
    """What rank 0 does in a run."""
    title = Path(recipe.source).stem
    shown = LiveReport(display, out, recipe.stages, title=title)
    context = Context.of(recipe, out, worlds, shown)
    mirror = Mirror(track, shown.note)
    _refuse_missing(recipe, context, force=force)
    with RunDirectory.open(out, recipe.as_table(), force=force) as pipeline, mirror.opened(out, _shown_table(recipe)):
        if not pipeline.done:
            held_out = {"data": data_hashes(recipe.held_out)}
            _refuse_changed(pipeline, held_out)
            pipeline.update(**held_out)
        seconds: dict[str, float] = dict(pipeline.manifest.get("seconds", {}))
        for stage in recipe.stages:
            shown.stage(stage.name, stage.kind)
            own = {"seed": recipe.seed, **stage.as_table()}
            with (
                RunDirectory.open(out / stage.name, own, force=force) as record,
                mirror.following(stage.name, record.metrics),
            ):
                if record.done and pipeline.done:
                    changed = changed_since(record.manifest, record.path, _still_here(record))
                    if changed is not None:
                        shown.note(f"{stage.name}: {changed}; this is the earlier result, use --force to begin anew")
                    continue
                origins = context.origins(stage.inputs)
                _refuse_changed(record, origins)
                if record.done:
                    continue
                record.update(**origins)
                started = time.perf_counter()
                try:
                    with shown.follow(stage, record, seconds), followers.beside(stage):
                        run_stage(replace(context, round=stage.round), stage, record)
                finally:  # a stage that is broken off and goes on later has taken both times
                    seconds[stage.name] = seconds.get(stage.name, 0.0) + time.perf_counter() - started
                    pipeline.update(seconds=seconds)
        if not pipeline.done:
            report = pipeline_report(recipe, out, seconds)
            write_json(out / "report.json", report)
            metrics = [
                {"stage": stage.name, **row}
                for stage in recipe.stages
                for row in read_log(out / stage.name / "metrics.jsonl")
            ]
            samples = report.get("samples", ())
            write_report(out / "report.html", report, metrics=metrics, samples=samples, title=title)
        pipeline.finish()
    return seconds


class _Followers:
    """The ranks above 0, which wait to be told the stage that all run next."""

    def __init__(self) -> None:
        self._waiting = True

    @contextmanager
    def beside(self, stage: Stage) -> Iterator[None]:
        """They run the stage too while the block does."""
        if stage.kind in WITHOUT_MODELS:
            yield
            return
        self._waiting = False
        ranks.from_first(lambda: stage.name)
        yield
        self._waiting = True

    def __enter__(self) -> _Followers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._waiting:  # an error inside a stage reaches them there
            last = ENDED if kind is None else FAILED
            ranks.from_first(lambda: last)


def _follow(recipe: Recipe, out: Path, worlds: Mapping[str, World]) -> None:
    """What the ranks above 0 do in a run: the stages that they are told, from the same inputs, for rank 0 to write."""
    context = Context.of(recipe, out, worlds, Silent())
    stages = {stage.name: stage for stage in recipe.stages}
    while (name := ranks.from_first(lambda: ENDED)) != ENDED:  # as rank 0 says it
        if name == FAILED:
            ranks.end_after_first()
        with ranks.run_directory(out / name, {}) as record:
            run_stage(replace(context, round=stages[name].round), stages[name], record)


def _refuse_missing(recipe: Recipe, context: Context, *, force: bool) -> None:
    """TunefulError for what a stage names and there is not, and for what its model's family cannot do; what only stages
    read that are done may be gone."""
    for stage in recipe.stages:
        try:
            context.refuse_unknown(stage.inputs)
        except ConfigError as error:
            raise ConfigError(f"{recipe.source}: stage {stage.name}: {error}") from None
    records = {stage.name: read_stage(context.out / stage.name) for stage in recipe.stages}
    undone = [name for name, record in records.items() if force or record is None or not record.manifest.get("done")]
    if undone:
        for name in recipe.held_out:
            try:
                resolve(name)
            except DataError as error:
                raise DataError(f"{recipe.source}: held_out: {error}") from None
    for number, stage in enumerate(recipe.stages):
        if stage.name in undone:
            before = {one.name: one for one in recipe.stages[:number]}
            try:
                context.refuse_missing(stage.inputs, list(before))
                family = context.family(stage.inputs, {name: before[name] for name in undone if name in before})
                if family is not None:
                    refuse_unfit(stage.inputs, family)
            except TunefulError as error:
                raise type(error)(f"{recipe.source}: stage {stage.name}: {error}") from error


def _shown_table(recipe: Recipe) -> dict[str, Any]:
    """The recipe with its stages by name, as a tracker can sort runs by them."""
    table = recipe.as_table()
    return table | {"stages": {stage["name"]: stage for stage in table["stages"]}}


def _refuse_changed(record: RunDirectory, origins: Mapping[str, Any]) -> None:
    """RunError for a file or model that is not the one recorded: half a run on each would be a run of neither."""
    changed = changed_since(record.manifest, record.path, origins)
    if changed is not None:
        raise RunError(f"{changed}; restore it, or use --force to begin anew")


def _still_here(record: RunDirectory) -> dict[str, dict[str, str]]:
    """The hashes that the files and models a stage has read have now, without any that are gone or on the hub."""
    files = {name: local(name) for name in record.manifest.get("data", {})}
    folders = {name: Path(name).expanduser() for name in record.manifest.get("models", {})}
    return {
        "data": {name: file_hash(file) for name, file in files.items() if file is not None},
        "models": {name: tree_hash(folder) for name, folder in folders.items() if folder.is_dir()},
    }


def changed_since(manifest: Mapping[str, Any], path: Path, origins: Mapping[str, Any]) -> str | None:
    """The first file or model that is not the one in the manifest of the run directory `path`, told."""
    for kind in ("data", "models"):
        recorded = manifest.get(kind, {})
        for name, digest in origins.get(kind, {}).items():
            if recorded.get(name, digest) != digest:
                return f"{name}: changed since the run in {path} began"
    return None


def pipeline_report(recipe: Recipe, out: Path, seconds: Mapping[str, float]) -> dict[str, Any]:
    """One report above those of the stages: what each found, of several stages of one kind what the last found.

    Why a stage ended, its counts and its alarm stand under its name, and all it found where it is not the only one of
    its kind. The alarm above is the last that rang.
    """
    num_of_kind = Counter(stage.kind for stage in recipe.stages)
    last = {stage.kind: stage.name for stage in recipe.stages}
    report: dict[str, Any] = {"seed": recipe.seed, "stages": {}}
    for stage in recipe.stages:
        file = out / stage.name / "report.json"
        if not file.exists():
            continue
        found = json.loads(file.read_text(encoding="utf-8"))
        own = {name: found[name] for name in found if name in ("ended", "alarm") or name.startswith("num_")}
        report["stages"][stage.name] = own if num_of_kind[stage.kind] == 1 else found
        if last[stage.kind] == stage.name:
            report |= {name: value for name, value in found.items() if name not in own}
        if "alarm" in found:
            report["alarm"] = found["alarm"] or report.get("alarm")
    return report | {"seconds": {**seconds, "total": sum(seconds.values())}}
