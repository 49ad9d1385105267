"""One whole small run, from samples over judgments to an evaluated policy, with adapters on adapters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.pipeline.recipes import WORDS, stage_toml
from tuneful.data.jsonl import write_jsonl
from tuneful.pipeline.context import Labeling, World
from tuneful.pipeline.recipe import load_recipe
from tuneful.pipeline.run import run_recipe
from tuneful.records import Candidates, Judgment

KINDS = {f"careful-{n}": "careful" for n in range(5)} | {"hasty": "hasty", "random": "random"}


def road_recipe(model: Path, prompts: Path) -> str:
    """A stage of every kind."""
    asked = {"prompts": prompts, "max_new_tokens": 5}
    normalised = {"normalise_prompts": prompts, "normalise_model": model, "normalise_samples": 64, "max_new_tokens": 5}
    steps = {"num_steps": 2, "prompts_per_step": 8, "epochs": 1, "evaluate_every": 2, "evaluate_prompts": 4}
    agreed = {"comparisons": "@consensus"}
    adapter = {"lora": {"rank": 2}, "optimization": {"learning_rate": 0.05}}
    stages = [
        stage_toml("samples", do="generate", model=model, num_samples=3, **asked),
        stage_toml("labels", do="label", completions="@samples", raters="toy:raters", raters_per_item=7),
        stage_toml("consensus", do="consensus", judgments="@labels", completions="@samples"),
        stage_toml(
            "sft", algorithm="sft", model=model, demonstrations="@consensus", demonstrations_per_step=16, **adapter
        ),
        stage_toml("reward", algorithm="reward", model=model, prompts_per_step=16, **agreed, **normalised, **adapter),
        stage_toml("dpo", algorithm="dpo", model=model, pairs_per_step=32, **agreed, **adapter),
        stage_toml("ppo", algorithm="ppo", model="@sft", reward="@reward", **asked, **steps, **adapter),
        stage_toml("evaluate", do="evaluate", before="@sft", after="@ppo", num_samples=1, reward="@reward", **asked),
    ]
    return "splits = { reward = 0.4, rl = 0.3, dev = 0.1, test = 0.2 }\n" + "".join(stages)


def short_is_better(items: Sequence[Candidates], raters_per_item: int, seed: int, round_number: int) -> Labeling:
    """All raters but one rank short answers first; the last one has it the other way round."""
    judgments = []
    for item in items:
        lengths = [len(c.text.split()) for c in item.completions]
        for rater in list(KINDS)[:raters_per_item]:
            ranks = tuple(1 + sum(other < own for other in lengths) for own in lengths)
            if rater == "random":
                ranks = tuple(1 + sum(other > own for other in lengths) for own in lengths)
            judgments.append(
                Judgment(
                    id=f"{rater}-{item.prompt.id}",
                    item=item.prompt.id,
                    prompt=item.prompt.id,
                    completions=tuple(c.id for c in item.completions),
                    rater=rater,
                    rater_kind="simulated",
                    ranks=ranks,
                    instructions="toy-1",
                )
            )
    return Labeling(judgments, KINDS)


@pytest.fixture(scope="session")
def road(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Path:
    """The folder of the finished run; tests copy it before they change anything."""
    folder = tmp_path_factory.mktemp("road")
    prompts = [{"prompt": [{"role": "user", "content": f"{a} {b}"}]} for a in WORDS for b in WORDS[:4]]
    write_jsonl(folder / "prompts.jsonl", prompts)
    (folder / "road.toml").write_text(road_recipe(tiny_model_dir, folder / "prompts.jsonl"))
    run_recipe(
        load_recipe(folder / "road.toml"), folder / "run", worlds={"toy": World(raters={"raters": short_is_better})}
    )
    return folder / "run"
