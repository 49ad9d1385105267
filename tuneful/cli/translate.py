"""`tuneful translate`: the settings of another tool as a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tuneful.cli.options import Force, Json

if TYPE_CHECKING:
    from tuneful.pipeline.translate.translation import Translation

TITLES = {
    "learned": "without counterpart, and it changes what is learned",
    "unknown": "unknown, and so left out",
    "other": "without counterpart, and it changes nothing that is learned",
}


def command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="RL4LMs' YAML, or TRL's settings as YAML or JSON.")],
    out: Annotated[Path, typer.Option("--out", help="The recipe, a TOML file.")],
    kind: Annotated[
        Literal["ppo", "dpo", "grpo", "rloo", "sft", "reward"] | None,
        typer.Option(help="Which of TRL's classes it is of, where its settings do not tell."),
    ] = None,
    devices: Annotated[int, typer.Option(min=1, help="On how many devices that run was, which batches depend on.")] = 1,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Rows of its training data, which numbers of steps follow from.")
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """The settings of RL4LMs or TRL as a recipe of one stage, and which of them have no counterpart.

    A value whose unit differs is converted, and the recipe says how at its line. What a file of theirs does not say
    stands at their default, not at ours. Settings without counterpart are told with the reason; those at the tool's own
    default that change nothing are counted.

    Example: tuneful translate gpt2_nlpo.yml --out recipe.toml
    """
    import json
    from dataclasses import asdict

    from tuneful.data.writing import refuse_existing, written_whole
    from tuneful.pipeline.translate.file import translate

    refuse_existing(out, force=force)
    found = translate(file, kind=kind, devices=devices, rows=rows)
    with written_whole(out, force=force) as written:
        written.write(found.recipe(f"From {file.name}, settings of {found.tool} ({found.kind})").encode())
    if as_json:
        print(json.dumps({"file": str(file), "out": str(out), **asdict(found)}, default=str))
    else:
        _print(found, out)


def _print(found: Translation, out: Path) -> None:
    from rich.console import Console
    from rich.markup import escape

    from tuneful.pipeline.translate.translation import show, toml

    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold]{found.tool} {escape(found.kind)} → {found.algorithm} in {escape(str(out))}[/]")
    for one in found.counterparts:
        console.print(f"  {escape(one.theirs or '(no setting of theirs)')} → {one.ours} = {escape(toml(one.value))}")
        if one.note:
            console.print(f"    [dim]{escape(one.note)}[/]")
    first = [one for one in found.counterparts if one.pending]
    if first:
        console.print("[bold]to be written or set before it can run[/]")
    for one in first:
        console.print(f"  {one.ours} = {escape(toml(one.value))}\n    [dim]{escape(one.note)}[/]")
    for group, title in TITLES.items():
        lost = [one for one in found.lost if one.group == group]
        if not lost:
            continue
        console.print(f"[bold]{title}[/]")
        for why in dict.fromkeys(one.why for one in lost):
            settings = ", ".join(
                f"{one.name} = {show(one.value)}{' (default)' if one.silent else ''}" for one in lost if one.why == why
            )
            console.print(f"  {escape(settings)}\n    [dim]{escape(why)}[/]")
    if found.at_default:
        console.print(f"{found.at_default} more stand at the tool's default, or have no effect there")
