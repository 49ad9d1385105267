"""`tuneful evaluate`"""

from __future__ import annotations

from typing import Annotated

import typer

from tuneful.cli.options import Force, In, Json, MaxPromptTokens, Out, Seed


def command(
    before: Annotated[str, typer.Option(help="The model compared with.")],
    after: Annotated[str, typer.Option(help="The model that was tuned.")],
    in_: In,
    out: Out,
    reward: Annotated[str | None, typer.Option(help="A reward to measure both with.")] = None,
    toxicity: Annotated[
        str | None, typer.Option(help="What measures toxicity: a file of words, or a classifier as a table.")
    ] = None,
    num_samples: Annotated[int, typer.Option(help="Completions per prompt and model.")] = 4,
    max_new_tokens: Annotated[int, typer.Option(help="Longest completion.")] = 128,
    max_prompt_tokens: MaxPromptTokens = None,
    seed: Seed = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Two models side by side on the same prompts, with intervals; all prompts of the file are used.

    Example: tuneful evaluate --before base --after runs/ppo/model --in prompts.jsonl --out runs/eval
    """
    import json

    from tuneful.cli.progress import terminal_display
    from tuneful.pipeline.inputs import EvaluateInputs
    from tuneful.pipeline.recipe import Recipe, Stage
    from tuneful.pipeline.run import run_recipe
    from tuneful.rewards.tables import reward_text, toxicity_text

    given = EvaluateInputs(
        before=before,
        after=after,
        prompts=str(in_),
        num_samples=num_samples,
        max_new_tokens=max_new_tokens,
        max_prompt_tokens=max_prompt_tokens,
        reward=None if reward is None else reward_text(reward, where="--reward"),
        toxicity=None if toxicity is None else toxicity_text(toxicity, where="--toxicity"),
    )
    recipe = Recipe("command line", seed, {"test": 1.0}, (Stage("evaluate", "evaluate", given, None),))
    with terminal_display() as display:
        run_recipe(recipe, out, display=display, force=force)
    folder = out / "evaluate"
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    if as_json:
        print(json.dumps(report))
        return
    for name, change in report["difference"].items():
        low, high = change["interval"]
        old, new = report["before"][name]["mean"], report["after"][name]["mean"]
        print(f"{name:<14} {old:8.3f} -> {new:8.3f}   difference {change['mean']:+.3f} [{low:+.3f}, {high:+.3f}]")
    print(f"the report is {folder / 'report.html'}")
