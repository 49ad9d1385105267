"""Rewards of every kind through a recipe: what is trained on, what is measured of it, and what is left behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, BertForSequenceClassification

from tests.pipeline.recipes import WORDS
from tuneful.data.jsonl import write_jsonl
from tuneful.errors import RewardError, TunefulError
from tuneful.pipeline.recipe import load_recipe
from tuneful.pipeline.run import run_recipe
from tuneful.runs.manifest import tree_hash

HEAD = """
splits = {{ reward = 0.1, rl = 0.5, dev = 0.2, test = 0.2 }}

[[stage]]
name = "ppo"
algorithm = "ppo"
model = "{model}"
prompts = "{prompts}"
num_steps = 2
prompts_per_step = 4
max_new_tokens = 6
evaluate_every = 2
evaluate_prompts = 8
missing_eos_penalty = 0.0
reward = {reward}
"""

EVALUATE = """
[[stage]]
name = "evaluate"
do = "evaluate"
before = "{model}"
after = "@ppo"
prompts = "{prompts}"
num_samples = 2
max_new_tokens = 6
reward = "longer"
toxicity = {toxicity}
"""


def run(folder: Path, model: Path, reward: str, toxicity: str = "") -> Path:
    write_jsonl(folder / "prompts.jsonl", ({"prompt": f"{a} {b}"} for a in WORDS for b in WORDS[:3]))
    text = HEAD + (EVALUATE if toxicity else "")
    given = {"model": model, "prompts": folder / "prompts.jsonl", "reward": reward, "toxicity": toxicity}
    (folder / "recipe.toml").write_text(text.format(**given))
    run_recipe(load_recipe(folder / "recipe.toml"), folder / "out")
    return folder / "out"


def evaluations(out: Path) -> list[dict[str, Any]]:
    rows = map(json.loads, (out / "ppo" / "metrics.jsonl").open())
    return [row for row in rows if row["kind"] == "evaluation"]


def test_a_sum_with_a_classifier_and_a_word_list(tmp_path: Path, tiny_model_dir: Path, hate_dir: Path) -> None:
    """Each part's mean on dev prompts stands beside the reward, which they add up to; nothing is clipped at 9 here."""
    (tmp_path / "rude.txt").write_text("sorry\nnot\n")
    classifier = f'{{ classifier = "{hate_dir}", label = "nothate", output = "logodds" }}'
    parts = (
        f"[{{ reward = {classifier}, weight = 2.0, clip = 9 }},"
        ' { reward = { rule = "length", budget = 3 }, weight = 0.1 }, { reward = "longer", weight = 0.0 }]'
    )
    toxicity = f'{{ rule = "words", file = "{tmp_path}/rude.txt", measure = "any" }}'
    out = run(tmp_path, tiny_model_dir, parts, toxicity)
    rows = evaluations(out)
    assert rows
    for row in rows:
        total = 2 * row["reward_classifier"] + 0.1 * row["reward_length"]
        assert row["reward"] == pytest.approx(total, abs=1e-4)
        assert row["reward_longer"] > 0
    manifest = json.loads((out / "ppo" / "run.json").read_text())
    assert manifest["models"][str(hate_dir)] == tree_hash(hate_dir)
    evaluated = json.loads((out / "evaluate" / "run.json").read_text())
    assert f"{tmp_path}/rude.txt" in evaluated["data"]

    report = json.loads((out / "evaluate" / "report.json").read_text())
    answers = map(json.loads, (out / "evaluate" / "answers.jsonl").open())
    texts = [text.split() for row in answers for text in row["after"]]
    toxic = sum(bool({"sorry", "not"} & set(words)) for words in texts) / len(texts)
    assert 0 < toxic < 1
    assert report["after"]["toxicity"]["mean"] == pytest.approx(toxic)
    assert {"mean", "interval", "n"} <= report["difference"]["toxicity"].keys()


def test_a_classifier_measures_toxicity(tmp_path: Path, tiny_model_dir: Path, hate_dir: Path) -> None:
    """Of completions alone, as transformers' own pipeline would read them."""
    toxicity = f'{{ classifier = "{hate_dir}", label = "hate", output = "probability" }}'
    out = run(tmp_path, tiny_model_dir, '"shorter"', toxicity)
    report = json.loads((out / "evaluate" / "report.json").read_text())
    texts = [text for row in map(json.loads, (out / "evaluate" / "answers.jsonl").open()) for text in row["before"]]
    model: Any = BertForSequenceClassification.from_pretrained(hate_dir).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(hate_dir)
    with torch.no_grad():
        found = [model(**tokenizer(text, return_tensors="pt")).logits[0].softmax(-1)[1] for text in texts]
    assert report["before"]["toxicity"]["mean"] == pytest.approx(float(torch.stack(found).mean()), abs=1e-5)


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        ('{{ classifier = "{hate}" }}', "say which label counts, for example label"),
        ('{{ classifier = "{none}", label = 0 }}', "no such model directory"),
        ('{{ rule = "words", file = "{none}" }}', "cannot be read: No such file or directory"),
        ('{{ ensemble = ["longer", "{none}:score"] }}', "cannot be loaded"),
        ('[{{ reward = "longer" }}, {{ reward = "{none}/m.py:score" }}]', "cannot be loaded"),
        (
            '{{ judge = "http://127.0.0.1:9/v1", model = "m", retries = 0, timeout = 5 }}',
            "judge m at http://127.0.0.1:9/v1 cannot be reached, tried 1 times",
        ),
    ],
)
def test_what_a_reward_cannot_be_loaded_from_is_one_line(
    tmp_path: Path, tiny_model_dir: Path, hate_dir: Path, reward: str, said: str
) -> None:
    with pytest.raises(TunefulError) as error:
        run(tmp_path, tiny_model_dir, reward.format(hate=hate_dir, none=tmp_path / "nowhere"))
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert isinstance(error.value, RewardError) or "no such model" in said
