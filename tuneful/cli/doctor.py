"""`tuneful doctor`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuneful.cli.options import Json


def command(
    model: Annotated[str | None, typer.Option(help="A model to look into.")] = None,
    data: Annotated[Path | None, typer.Option("--in", help="A data file to look into.")] = None,
    as_json: Json = False,
) -> None:
    """What this machine can do, and whether a model and a data file are fit to train with.

    Example: tuneful doctor --model runs/demo/ppo/model --in prompts.jsonl
    """
    import json

    from tuneful.runs.manifest import environment

    findings: dict[str, object] = dict(environment())
    if data is not None:
        from tuneful.data.formats import detect, read_prompts

        prompts = read_prompts(data)
        findings |= {"format": detect(data), "prompts": len(prompts)}
    if model is not None:
        from tuneful.models.loading import load_causal, load_tokenizer

        tokenizer = load_tokenizer(model)
        loaded = load_causal(model)
        findings |= {
            "architecture": type(loaded).__name__,
            "parameters": sum(p.numel() for p in loaded.parameters()),
            "context": loaded.config.get_text_config().max_position_embeddings,
            "end_token": tokenizer.eos_token,
            "pad_token": tokenizer.pad_token,
            "chat_template": bool(tokenizer.chat_template),
        }
    if as_json:
        print(json.dumps(findings))
    else:
        for name, value in findings.items():
            print(f"{name:<16} {value}")
