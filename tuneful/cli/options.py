"""Flags that mean the same in every command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
Seed = Annotated[int, typer.Option("--seed", min=0, help="Everything random follows from it.")]
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
