"""`tuneful evaluate`: what a file of prompts, of comparisons or of annotations has to say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuneful.cli.options import Device, Force, In, Json, MaxPromptTokens, Out, Seed
from tuneful.errors import ConfigError

if TYPE_CHECKING:
    from tuneful.pipeline.recipe import Stage


SAMPLING = ("num_samples", "max_new_tokens", "max_prompt_tokens")
"""Flags on how answers are sampled."""


def command(
    context: typer.Context,
    in_: In,
    out: Out,
    before: Annotated[str | None, typer.Option(help="The model compared with.")] = None,
    after: Annotated[str | None, typer.Option(help="The model that was tuned.")] = None,
    reward: Annotated[str | None, typer.Option(help="A reward: to measure both with, or to be measured.")] = None,
    model: Annotated[str | None, typer.Option(help="A model whose log-probabilities are to be measured.")] = None,
    leaderboard: Annotated[Path | None, typer.Option(help="Published numbers of annotated models: a CSV.")] = None,
    toxicity: Annotated[
        str | None, typer.Option(help="What measures toxicity: a file of words, or a classifier as a table.")
    ] = None,
    store: Annotated[str, typer.Option(help="Of --project: a SQLite file, or postgresql://…")] = "judgments.db",
    project: Annotated[
        str | None, typer.Option(help="Project of the store in which people compared both models.")
    ] = None,
    num_samples: Annotated[int, typer.Option(help="Completions per prompt and model.")] = 4,
    max_new_tokens: Annotated[int, typer.Option(help="Longest completion.")] = 128,
    max_prompt_tokens: MaxPromptTokens = None,
    seed: Seed = 0,
    device: Device = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """One of three, by what is given; all rows of the file are used.

    With --before and --after: two models side by side on the same prompts, with intervals; with --project people's
    word on them too. With --reward or --model alone: how often it prefers the chosen answer of a file of comparisons.
    With neither: the win rates, raw and length-controlled, of the models in a file of annotations, beside published
    ones with --leaderboard.

    Example: tuneful evaluate --before base --after runs/ppo/model --in prompts.jsonl --out runs/eval

    Example: tuneful evaluate --reward runs/hh/reward/model --in comparisons.jsonl --out runs/accuracy

    Example: tuneful evaluate --in alpaca_eval_gpt4.jsonl.gz --leaderboard leaderboard.csv --out runs/alpaca
    """
    from tuneful.pipeline.inputs import AccuracyInputs, EvaluateInputs, People
    from tuneful.pipeline.recipe import Stage
    from tuneful.rewards.tables import reward_text, toxicity_text

    measured = None if reward is None else reward_text(reward, where="--reward")
    if before is not None and after is not None:
        _refuse(context, ("model", "leaderboard"), "--before and --after")
        if project is None:
            _refuse(context, ("store",), "--before and --after without --project")
        given = EvaluateInputs(
            before=before,
            after=after,
            prompts=str(in_),
            num_samples=num_samples,
            max_new_tokens=max_new_tokens,
            max_prompt_tokens=max_prompt_tokens,
            reward=measured,
            toxicity=None if toxicity is None else toxicity_text(toxicity, where="--toxicity"),
            people=None if project is None else People(store=store, project=project),
        )
        report = _run(Stage("evaluate", "evaluate", given, None), out, seed=seed, force=force)
        lines = _changes(report)
    elif before is not None or after is not None:
        raise ConfigError("evaluate: --before and --after go together; one model alone is measured by --model")
    elif reward is not None or model is not None:
        _refuse(context, ("toxicity", "leaderboard", "store", "project", *SAMPLING), "--reward or --model alone")
        accuracy = AccuracyInputs(comparisons=str(in_), reward=measured, model=model)
        report = _run(Stage("accuracy", "accuracy", accuracy, None), out, seed=seed, force=force)
        lines = _accuracies(report)
    else:
        _refuse(context, ("toxicity", "store", "project", *SAMPLING), "a file of annotations")
        report = _standings(in_, leaderboard, out, seed=seed, force=force)
        lines = _table(report)
    if as_json:
        print(json.dumps(report))
        return
    print("\n".join(lines))


def _refuse(context: typer.Context, flags: Iterable[str], mode: str) -> None:
    for flag in flags:
        source = context.get_parameter_source(flag)
        if source is not None and source.name == "COMMANDLINE":
            raise ConfigError(f"evaluate: --{flag.replace('_', '-')} says nothing with {mode}; leave it out")


def _run(stage: Stage, out: Path, *, seed: int, force: bool) -> dict[str, Any]:
    """The report of one stage that is run into `out`, with the place of its page."""
    from tuneful.cli.progress import terminal_display
    from tuneful.pipeline.recipe import Recipe
    from tuneful.pipeline.run import run_recipe

    recipe = Recipe("command line", seed, {"test": 1.0}, (stage,))
    with terminal_display() as display:
        run_recipe(recipe, out, display=display, force=force)
    folder = out / stage.name
    report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return report | {"page": str(folder / "report.html")}


def _standings(annotations: Path, published: Path | None, out: Path, *, seed: int, force: bool) -> dict[str, Any]:
    """The standings of the models in a file of annotations."""
    from tuneful.cli.progress import terminal_display
    from tuneful.data.formats import detect
    from tuneful.data.sources import resolve
    from tuneful.pipeline.standings import report_standings

    annotations = resolve(str(annotations))
    if detect(annotations) != "annotations":
        raise ConfigError(
            f"evaluate: {annotations} holds no annotations; for prompts give --before and --after, for comparisons "
            "--reward or --model"
        )
    with terminal_display() as display:
        display.stage("evaluate", "length control")
        return report_standings(
            annotations,
            published,
            out,
            seed=seed,
            force=force,
            on_progress=lambda done, of: display.step(done, of, {}, unit="fits"),
        )


def _changes(report: Mapping[str, Any]) -> list[str]:
    from tuneful.pipeline.provenance import raters_by_kind

    lines = []
    for name, change in report["difference"].items():
        low, high = change["interval"]
        old, new = report["before"][name]["mean"], report["after"][name]["mean"]
        lines.append(
            f"{name:<14} {old:8.3f} -> {new:8.3f}   difference {change['mean']:+.3f} [{low:+.3f}, {high:+.3f}]"
        )
    if people := report.get("people"):
        by = raters_by_kind(people["num_labelers"])
        lines.append(
            f"{people['num_judgments']} judgments of {by}: {_share(people['win_rate'])} prefer the model after"
        )
        lines += [f"{name} prefers what they prefer: {_share(m)}" for name, m in people["agreement"].items() if m]
    return [*lines, f"the report is {report['page']}"]


def _share(m: Mapping[str, Any]) -> str:
    return f"{m['mean']:.1%} ({m['interval'][0]:.1%} to {m['interval'][1]:.1%}, {m['n']} prompts)"


def _accuracies(report: Mapping[str, Any]) -> list[str]:
    found = {"reward": report["reward_model"]} if "reward_model" in report else {}
    found |= {f"log-probability, {name}": seen for name, seen in report.get("log_probability", {}).items()}
    baselines = next(iter(found.values()))["baselines"]
    rows = {name: seen["heldout_accuracy"] for name, seen in found.items()}
    rows |= {f"{name}, length matched": seen["accuracy_length_matched"] for name, seen in found.items()}
    rows |= {name.replace("_", " "): measured for name, measured in baselines.items()}
    lines = [
        f"{name:<42} {m['mean']:.3f} [{m['interval'][0]:.3f}, {m['interval'][1]:.3f}]  {m['n']} prompts"
        for name, m in rows.items()
        if m is not None
    ]
    return [*lines, f"the report is {report['page']}"]


def _table(report: Mapping[str, Any]) -> list[str]:
    titles = f"{'win rate':>8}    SE  {'published':<16} {'length-controlled':<24} {'published':<16}     n  characters"
    lines = [f"{'against ' + report['baseline']:<32} {titles}"]
    for row in report["leaderboard"]:
        low, high = row["length_controlled_interval"]
        raw = f"{row['win_rate']:8.2f} {row['standard_error']:5.2f}  {_published(row, 'win_rate'):<16}"
        controlled = f"{row['length_controlled_win_rate']:6.2f}  [{low:5.2f}, {high:5.2f}]"
        known = _published(row, "length_controlled_win_rate")
        lines.append(f"{row['model']:<32} {raw} {controlled:<24} {known:<16} {row['n']:>5} {row['mean_length']:>11.0f}")
    return [*lines, f"the report is {report['page']}"]


def _published(row: Mapping[str, Any], name: str) -> str:
    """The published number with what ours is above it."""
    if name not in row["published"]:
        return "     -"
    above = round(row["difference"][name], 2) + 0.0  # no "-0.00"
    return f"{row['published'][name]:6.2f}  ({above:+.2f})"
