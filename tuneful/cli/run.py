"""`tuneful run` and `tuneful train`"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from tuneful.cli.options import Device, Force, Json, Out, Set, Track

RecipeFile = Annotated[Path, typer.Argument(help="A recipe: a TOML file of [[stage]] tables.")]
OptionalSeed = Annotated[int | None, typer.Option("--seed", help="In place of the recipe's seed.")]


def run_command(
    recipe: RecipeFile,
    out: Out,
    seed: OptionalSeed = None,
    set_: Set = None,
    track: Track = None,
    device: Device = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Run a recipe's stages; run again to continue where it stopped.

    Example: tuneful run recipes/hh_small.toml --out runs/hh --set ppo.kl_coef=0.1
    """
    import json

    from tuneful.cli.progress import resumable, terminal_display
    from tuneful.demo.run import shipped_worlds
    from tuneful.engines import ranks
    from tuneful.pipeline.recipe import load_recipe
    from tuneful.pipeline.run import run_recipe

    loaded = load_recipe(recipe, set_ or (), seed=seed)
    with ranks.process_group():
        if ranks.rank() > 0:
            run_recipe(loaded, out, worlds=shipped_worlds())
            return
        with resumable(), terminal_display() as display:
            seconds = run_recipe(loaded, out, worlds=shipped_worlds(), display=display, track=track or (), force=force)
    reports = written_reports(out, [stage.name for stage in loaded.stages])
    if as_json:
        print(json.dumps({"seconds": seconds, "reports": reports}))
        return
    if "" in reports:
        print(f"the report is {reports['']}")
    for stage in loaded.stages:
        print(f"{stage.name:<12} {seconds.get(stage.name, 0.0):7.1f} s  {reports.get(stage.name, '')}".rstrip())


def written_reports(out: Path, stages: Iterable[str]) -> dict[str, str]:
    """The reports that exist under a run by stage, the whole run's first, under the name ""."""
    places = {name: out / name / "report.html" for name in ("", *stages)}
    return {name: str(path) for name, path in places.items() if path.exists()}


def train_command(
    recipe: RecipeFile,
    out: Out,
    seed: OptionalSeed = None,
    set_: Set = None,
    track: Track = None,
    device: Device = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Run a recipe of one algorithm.

    Example: tuneful train my_sft.toml --out runs/sft
    """
    from tuneful.errors import ConfigError
    from tuneful.pipeline.recipe import load_recipe

    stages = load_recipe(recipe, set_ or (), seed=seed).stages
    if len(stages) != 1 or stages[0].config is None:
        names = ", ".join(stage.name for stage in stages)
        raise ConfigError(f"{recipe}: train takes a recipe of one algorithm, this one has {names}; use tuneful run")
    run_command(recipe, out, seed, set_, track, device, force, as_json)
