"""One whole small run, from samples over judgments to an evaluated policy, with adapters on adapters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tuneful.data.jsonl import write_jsonl
from tuneful.pipeline.context import Labeling, World
from tuneful.pipeline.recipe import load_recipe
from tuneful.pipeline.run import run_recipe
from tuneful.records import Candidates, Judgment

WORDS = "bread cold cook day dog door fine fix green help hot house light near quiet rain red sleep tap tea".split()
KINDS = {f"careful-{n}": "careful" for n in range(5)} | {"hasty": "hasty", "random": "random"}

ROAD = """
splits = {{ reward = 0.4, rl = 0.3, dev = 0.1, test = 0.2 }}

[[stage]]
name = "samples"
do = "generate"
model = "{model}"
prompts = "{prompts}"
num_samples = 3
max_new_tokens = 5

[[stage]]
name = "labels"
do = "label"
completions = "@samples"
raters = "toy:raters"
raters_per_item = 7

[[stage]]
name = "consensus"
do = "consensus"
judgments = "@labels"
completions = "@samples"

[[stage]]
name = "sft"
algorithm = "sft"
model = "{model}"
demonstrations = "@consensus"
demonstrations_per_step = 16
lora = {{ rank = 2 }}
optimization = {{ learning_rate = 0.05 }}

[[stage]]
name = "reward"
algorithm = "reward"
model = "{model}"
comparisons = "@consensus"
normalise_prompts = "{prompts}"
normalise_model = "{model}"
normalise_samples = 64
max_new_tokens = 5
prompts_per_step = 16
lora = {{ rank = 2 }}
optimization = {{ learning_rate = 0.05 }}

[[stage]]
name = "dpo"
algorithm = "dpo"
model = "{model}"
comparisons = "@consensus"
pairs_per_step = 32
lora = {{ rank = 2 }}
optimization = {{ learning_rate = 0.05 }}

[[stage]]
name = "ppo"
algorithm = "ppo"
model = "@sft"
prompts = "{prompts}"
reward = "@reward"
num_steps = 2
prompts_per_step = 8
max_new_tokens = 5
epochs = 1
evaluate_every = 2
evaluate_prompts = 4
lora = {{ rank = 2 }}
optimization = {{ learning_rate = 0.05 }}

[[stage]]
name = "evaluate"
do = "evaluate"
before = "@sft"
after = "@ppo"
prompts = "{prompts}"
num_samples = 1
max_new_tokens = 5
reward = "@reward"
"""


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
    (folder / "road.toml").write_text(ROAD.format(model=tiny_model_dir, prompts=folder / "prompts.jsonl"))
    run_recipe(
        load_recipe(folder / "road.toml"), folder / "run", worlds={"toy": World(raters={"raters": short_is_better})}
    )
    return folder / "run"
