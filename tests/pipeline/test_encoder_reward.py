"""A reward model trained by a recipe from an encoder as it is published: no head, no end token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.pipeline.recipes import WORDS
from tuneful.data.jsonl import write_jsonl
from tuneful.pipeline.recipe import load_recipe
from tuneful.pipeline.run import run_recipe
from tuneful.records import Completion, Prompt
from tuneful.rewards.load import load_reward

RECIPE = """
splits = {{ reward = 0.7, rl = 0.1, dev = 0.1, test = 0.1 }}

[[stage]]
name = "reward"
algorithm = "reward"
model = "{encoder}"
comparisons = "{pairs}"
normalise_prompts = "{pairs}"
normalise_model = "{policy}"
normalise_samples = 32
max_new_tokens = 6
prompts_per_step = 8
max_tokens = 32
epochs = 4
optimization = {{ learning_rate = 3e-3 }}
test = "{pairs}"
"""


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, tiny_bert_dir: Path, tiny_model_dir: Path) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    prompts = [f"{a} {b}" for a in WORDS for b in WORDS[:4]]
    write_jsonl(folder / "pairs.jsonl", ({"prompt": p, "chosen": "yes please", "rejected": "no no"} for p in prompts))
    text = RECIPE.format(encoder=tiny_bert_dir, policy=tiny_model_dir, pairs=folder / "pairs.jsonl")
    (folder / "recipe.toml").write_text(text)
    run_recipe(load_recipe(folder / "recipe.toml"), folder / "run")
    return folder / "run" / "reward"


def test_it_learns_what_it_is_shown(out: Path) -> None:
    """Chosen answers all say yes, and rejected ones no, so an unseen prompt changes nothing."""
    assert json.loads((out / "report.json").read_text())["reward_model"]["heldout_accuracy"]["mean"] == 1.0


def test_transformers_loads_it_with_the_same_scores(out: Path) -> None:
    """score = gain * logit + bias, of the pair as the tokenizer itself writes it."""
    theirs: Any = AutoModelForSequenceClassification.from_pretrained(out / "model", dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(out / "model")
    facts = json.loads((out / "model" / "reward.json").read_text())
    assert facts["reads"] == "pooled"
    prompts, completions = [Prompt("hot house"), Prompt("cold tea please")], [Completion("yes"), Completion("no now")]
    ours = load_reward(str(out / "model"))(prompts, completions)
    for prompt, completion, score in zip(prompts, completions, ours, strict=True):
        logit = theirs(**tokenizer(prompt.text, completion.text, return_tensors="pt")).logits[0, 0]
        assert_close(score, facts["gain"] * logit + facts["bias"], atol=1e-4, rtol=1e-4)
