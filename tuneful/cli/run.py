"""`tuneful run` and `tuneful train`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuneful.cli.options import Force, Json, Out, Set

RecipeFile = Annotated[Path, typer.Argument(help="A recipe: a TOML file of [[stage]] tables.")]
OptionalSeed = Annotated[int | None, typer.Option("--seed", help="In place of the recipe's seed.")]


def run_command(
    recipe: RecipeFile,
    out: Out,
    seed: OptionalSeed = None,
    set_: Set = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Run a recipe's stages; run again to continue where it stopped.

    Example: tuneful run recipes/hh_small.toml --out runs/hh --set ppo.kl_coef=0.1
    """
    import json

    from tuneful.cli.progress import RichDisplay
    from tuneful.demo.run import shipped_worlds
    from tuneful.pipeline.recipe import load_recipe
    from tuneful.pipeline.run import run_recipe

    loaded = load_recipe(recipe, set_ or (), seed=seed)
    with RichDisplay() as display:
        seconds = run_recipe(loaded, out, worlds=shipped_worlds(), display=display, force=force)
    reports = {stage.name: str(out / stage.name / "report.html") for stage in loaded.stages}
    if as_json:
        print(json.dumps({"seconds": seconds, "reports": reports}))
    else:
        for name, path in reports.items():
            print(f"{name:<12} {seconds.get(name, 0.0):7.1f} s  {path}")


def train_command(
    recipe: RecipeFile,
    out: Out,
    seed: OptionalSeed = None,
    set_: Set = None,
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
    run_command(recipe, out, seed, set_, force, as_json)
