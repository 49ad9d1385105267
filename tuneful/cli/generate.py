"""`tuneful generate`"""

from __future__ import annotations

from typing import Annotated

import typer

from tuneful.cli.options import Force, In, Json, MaxPromptTokens, Model, Out, Seed, refuse_existing


def command(
    model: Model,
    in_: In,
    out: Out,
    num_samples: Annotated[int, typer.Option(help="Completions per prompt.")] = 1,
    max_new_tokens: Annotated[int, typer.Option(help="Longest completion.")] = 128,
    max_prompt_tokens: MaxPromptTokens = None,
    temperature: Annotated[float, typer.Option(help="0 takes the most likely token.")] = 1.0,
    seed: Seed = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Completions of every prompt in a file.

    Example: tuneful generate --model runs/demo/ppo/model --in prompts.jsonl --out answers.jsonl --num-samples 4
    """
    import json

    refuse_existing(out, force)
    from tuneful.cli.progress import RichDisplay
    from tuneful.data.formats import candidates_row, read_prompts, with_ids, write_jsonl
    from tuneful.engines.local import LocalEngine
    from tuneful.generation.sampling import Sampling
    from tuneful.models.loading import load_causal, load_tokenizer
    from tuneful.models.roles import Role, Roles
    from tuneful.rollouts.collect import candidates_of

    prompts = read_prompts(in_)
    sampling = Sampling(
        num_samples=num_samples,
        max_new_tokens=max_new_tokens,
        max_prompt_tokens=max_prompt_tokens,
        temperature=temperature,
    )
    engine = LocalEngine(Roles(policy=Role("policy", load_causal(model))), load_tokenizer(model))
    with RichDisplay() as display:
        display.stage("generate", model)
        rollout = engine.sample(
            prompts, sampling, seed=seed, on_progress=lambda done, total: display.step(done, total, {})
        )
    write_jsonl(out, map(candidates_row, with_ids(candidates_of(prompts, rollout, model))), force=force)
    told = {"out": str(out), "prompts": len(prompts), "completions": len(rollout), "tokens": rollout.num_tokens}
    print(json.dumps(told) if as_json else f"{len(rollout)} completions of {len(prompts)} prompts in {out}")
