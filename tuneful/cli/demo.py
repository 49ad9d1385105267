"""`tuneful demo`"""

from __future__ import annotations

from pathlib import Path

from tuneful.cli.options import Device, Force, Json, Out, Seed, Set, Track


def command(
    out: Out = Path("runs/demo"),
    seed: Seed = 0,
    set_: Set = None,
    track: Track = None,
    device: Device = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """The whole road offline in the demo world: samples, labels, consensus, reward model, PPO, evaluation.

    Example: tuneful demo --out runs/demo --seed 1
    """
    import json

    import typer

    from tuneful.cli.progress import resumable, terminal_display
    from tuneful.demo.run import run_demo
    from tuneful.pipeline.recipe import load_recipe, shipped_recipe

    recipe = load_recipe(shipped_recipe("demo"), set_ or (), seed=seed)
    with resumable(), terminal_display() as display:
        report = run_demo(recipe, out, display=display, track=track or (), force=force)
    if as_json:
        print(json.dumps(report))
    else:
        _summary(report, out)
    if not all(line["passed"] for line in report["required"]):
        raise typer.Exit(1)


def _summary(report: dict, out: Path) -> None:  # type: ignore[type-arg]
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("", "before", "after", "difference", title=f"Test prompts, seed {report['seed']}")
    for name in ("true_utility", "toxicity", "reward", "length", "filler"):
        cells = []
        for side in ("before", "after", "difference"):
            measured = report[side][name]
            low, high = measured["interval"]
            cells.append(f"{measured['mean']:.3f} [{low:.3f}, {high:.3f}]")
        table.add_row(name.replace("_", " "), *cells)
    console.print(table)
    for line in report["required"]:
        value = line["value"] if isinstance(line["value"], int) else f"{line['value']:.3g}"
        console.print(f"{'[green]✓[/]' if line['passed'] else '[red]✗[/]'} {line['name']}: {value} ({line['bar']})")
    console.print(f"{report['seconds']['total']:.0f} s in all; the report is {out / 'report.html'}")
