"""Flags that mean the same in every command."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

import typer

from tuneful.errors import ConfigError


def see_device(device: str | None) -> str | None:
    """Let this process, and those that it starts, see no GPU but the one that --device names; it must come before torch
    looks for one.

    Raises ConfigError for what is no device, or none that is here.
    """
    if device is None:
        return None
    named = re.fullmatch(r"cpu|cuda(?::(\d+))?", device)
    if named is None:
        raise ConfigError(f"--device {device}: no device; give cpu, cuda, or cuda:1 for the second GPU")
    if named[1] is not None and "LOCAL_RANK" in os.environ:
        raise ConfigError(f"--device {device}: under torchrun each process takes a GPU of its own; give cpu or cuda")
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        return device
    if named[1] is not None:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = [named[1]] if seen is None else seen.split(",")[int(named[1]) :]
        os.environ["CUDA_VISIBLE_DEVICES"] = names[0] if names else ""
    import torch

    if not torch.cuda.is_available():
        raise ConfigError(f"--device {device}: there is no such GPU here; give cpu, or leave --device out")
    return device


Out = Annotated[Path, typer.Option("--out", help="Where the result goes.")]
In = Annotated[Path, typer.Option("--in", help="Rows to read: JSONL, also .gz, or Parquet.")]
Model = Annotated[str, typer.Option("--model", help="Model directory or hub id.")]
Reward = Annotated[
    str,
    typer.Option("--reward", help='Reward model, rule, "./file.py:function", or a table as a recipe writes it.'),
]
StoreUrl = Annotated[
    str, typer.Option("--store", help="Judgments: a SQLite file, or postgresql://…; made when it is not there.")
]
OptionalStore = Annotated[
    str | None,
    typer.Option("--store", help="A SQLite file, or postgresql://…; judgments.db where no file of judgments is given."),
]
OptionalProject = Annotated[str | None, typer.Option("--project", help="Name or id of a project of the store.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Everything random follows from it.")]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        callback=see_device,
        help="cpu, cuda, or cuda:1 for the second GPU; without it a GPU where there is one.",
    ),
]
"""Of the models. What it names is seen to before the command begins (`see_device`), which need not look at it."""
MaxPromptTokens = Annotated[
    int | None, typer.Option("--max-prompt-tokens", help="Longer prompts lose their beginning; without it, refused.")
]
Set = Annotated[list[str] | None, typer.Option("--set", help="Override a setting: stage.setting=value.")]
Track = Annotated[
    list[str] | None,
    typer.Option("--track", help="Show the run in tensorboard, wandb or trackio as well; may be repeated."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one line of JSON for scripts.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what is there.")]
