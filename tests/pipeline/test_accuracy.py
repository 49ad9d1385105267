"""Which side of a pair is preferred: by log-probabilities that transformers computes, and by rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tuneful.data.jsonl import write_jsonl
from tuneful.data.preferences import comparison_row
from tuneful.errors import ConfigError
from tuneful.pipeline.accuracy import completion_logprobs, policy_accuracy, reward_accuracy
from tuneful.pipeline.inputs import AccuracyInputs
from tuneful.pipeline.recipe import load_recipe
from tuneful.pipeline.run import run_recipe
from tuneful.records import Comparison, Prompt
from tuneful.rewards.rules import RULES

PAIRS = [
    Comparison(Prompt.user("my house is hot"), "turn it up", "thank you very much"),
    Comparison(Prompt.user("the tap"), "yes", "no no no no"),
    Comparison(Prompt.user("is it cold"), "wait for the sun and cook bread", "sorry"),
    Comparison(Prompt.user("how do you know"), "good", "stop"),
]


def by_transformers(directory: Path, pair: Comparison, text: str) -> tuple[float, int]:
    """Summed log-probability and number of tokens of an answer with its end token, from one plain forward pass."""
    model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(directory)
    turns = [{"role": "user", "content": pair.prompt.text}]
    asked = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": text}], tokenize=False)
    prompt, ids = (tokenizer(t, add_special_tokens=False)["input_ids"] for t in (asked, whole))
    with torch.no_grad():
        logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return float(sum(logprobs[i - 1, ids[i]] for i in range(len(prompt), len(ids)))), len(ids) - len(prompt)


def test_log_probabilities_are_those_of_transformers(tiny_model_dir):
    expected: dict[str, list[list[float]]] = {"summed": [], "per_token": []}
    for pair in PAIRS:
        sides = [by_transformers(tiny_model_dir, pair, text) for text in (pair.chosen, pair.rejected)]
        expected["summed"].append([total for total, _ in sides])
        expected["per_token"].append([total / tokens for total, tokens in sides])
    found = policy_accuracy(str(tiny_model_dir), PAIRS)
    for name, scores in expected.items():
        wins = [chosen > rejected for chosen, rejected in scores]
        assert found[name]["heldout_accuracy"]["mean"] == sum(wins) / len(wins)
        margins = sorted(abs(chosen - rejected) for chosen, rejected in scores)
        assert [part["low"] for part in found[name]["accuracy_by_margin"]] == pytest.approx(margins, abs=1e-4)


def test_answers_are_scored_alike_in_any_batch(tiny_model, tiny_model_dir):
    from tuneful.models.roles import Role

    rows = [([1, 10, 11], [12, 2]), ([1, 13], [14, 15, 16, 2]), ([1, 10, 11, 12, 13], [2])]
    together = completion_logprobs(Role("policy", tiny_model), rows)
    alone = torch.cat([completion_logprobs(Role("policy", tiny_model), [row]) for row in rows])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_the_rule_shorter_is_the_baseline_shorter_wins():
    found = reward_accuracy(RULES["shorter"], PAIRS)  # 3 words against 4, 1 against 4, 7 against 1, 1 against 1
    assert found["heldout_accuracy"]["mean"] == found["baselines"]["shorter_wins"]["mean"] == (1 + 1 + 0 + 0.5) / 4


def test_a_stage_measures_both(tiny_model_dir, tmp_path):
    write_jsonl(tmp_path / "pairs.jsonl", map(comparison_row, PAIRS))
    (tmp_path / "recipe.toml").write_text(
        f'held_out = ["{tmp_path}/pairs.jsonl"]\n[[stage]]\nname = "hhh"\ndo = "accuracy"\n'
        f'comparisons = "{tmp_path}/pairs.jsonl"\nreward = "longer"\nmodel = "{tiny_model_dir}"\n'
    )
    run_recipe(load_recipe(tmp_path / "recipe.toml"), tmp_path / "out")
    report = json.loads((tmp_path / "out" / "hhh" / "report.json").read_text())
    assert report["num_comparisons"] == 4
    assert report["reward_model"]["heldout_accuracy"]["mean"] == 0.375
    assert report["log_probability"].keys() == {"summed", "per_token"}
    page = (tmp_path / "out" / "hhh" / "report.html").read_text()
    assert all(title in page for title in ("<h2>Reward model</h2>", "Log-probability, per token"))


def test_accuracy_of_nothing():
    with pytest.raises(ConfigError, match="accuracy of what"):
        AccuracyInputs(comparisons="pairs.jsonl")
