"""`tuneful generate`"""

from __future__ import annotations

from typing import Annotated

import typer

from tuneful.cli.options import Device, Force, In, Json, MaxPromptTokens, Model, Out, Seed
from tuneful.data.files import refuse_unwritable


def command(
    model: Model,
    in_: In,
    out: Out,
    num_samples: Annotated[int, typer.Option(help="Completions per prompt.")] = 1,
    max_new_tokens: Annotated[int, typer.Option(help="Longest completion.")] = 128,
    max_prompt_tokens: MaxPromptTokens = None,
    temperature: Annotated[float, typer.Option(help="0 takes the most likely token.")] = 1.0,
    top_p: Annotated[
        float | None, typer.Option(help="Of each token, draw from the likeliest that hold this much probability.")
    ] = None,
    stop: Annotated[list[str] | None, typer.Option(help="A completion ends before this text; may be repeated.")] = None,
    seed: Seed = 0,
    device: Device = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Completions of every prompt in a file.

    Example: tuneful generate --model runs/demo/ppo/model --in prompts.jsonl --out answers.jsonl --num-samples 4
    """
    import json

    refuse_unwritable(out, force=force)
    from tuneful.cli.progress import terminal_display
    from tuneful.data.formats import read_prompts
    from tuneful.errors import ConfigError
    from tuneful.generation.nucleus import nucleus
    from tuneful.generation.sampling import Sampling
    from tuneful.pipeline.answers import answer, write_answers

    if top_p is not None and temperature == 0:
        raise ConfigError("--top-p limits what is drawn, and with --temperature 0 nothing is; leave one out")
    choose = None if top_p is None else nucleus(top_p)
    prompts = read_prompts(in_)
    sampling = Sampling(
        num_samples=num_samples,
        max_new_tokens=max_new_tokens,
        max_prompt_tokens=max_prompt_tokens,
        temperature=temperature,
        stop=tuple(stop or ()),
    )
    with terminal_display() as display:
        display.stage("generate", model)
        rollout = answer(
            model,
            prompts,
            sampling,
            seed=seed,
            choose=choose,
            on_progress=lambda done, total: display.step(done, total, {}),
            note=display.note,
        )
    write_answers(out, prompts, rollout, model, force=force)
    told = {"out": str(out), "prompts": len(prompts), "completions": len(rollout), "tokens": rollout.num_tokens}
    print(json.dumps(told) if as_json else f"{len(rollout)} completions of {len(prompts)} prompts in {out}")
