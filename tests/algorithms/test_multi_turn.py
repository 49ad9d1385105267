"""Conversations of several turns, from the file to the loss: the last turn of the assistant alone is learned."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tuneful.algorithms.reward_model import RewardModel, RewardModelConfig, group_pairs
from tuneful.algorithms.sft import SFT, SFTConfig
from tuneful.data.formats import read_comparisons, read_demonstrations

Build = Callable[..., Any]

TALK = [
    {"role": "user", "content": "is the house hot"},
    {"role": "assistant", "content": "it is very hot"},
    {"role": "user", "content": "what can i do"},
]
BEFORE = "<bos> <user> is the house hot <assistant> it is very hot <eos> <user> what can i do <assistant>".split()
GOOD = {"role": "assistant", "content": "open a window"}
BAD = {"role": "assistant", "content": "sleep now"}


@pytest.fixture
def file(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    def write(row: dict[str, Any]) -> Path:
        (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
        return tmp_path / "rows.jsonl"

    return write


def test_a_demonstration_is_learned_in_its_last_turn_alone(policy_engine: Build, file: Callable[..., Path]) -> None:
    """Against transformers' own loss, with the label -100 on all that is not to be learned."""
    engine = policy_engine()
    tokens, model = engine.tokenizer.convert_ids_to_tokens, engine.roles.policy.model
    demonstrations = read_demonstrations(file({"messages": [*TALK, GOOD]}))
    learner = SFT(engine, demonstrations, SFTConfig(demonstrations_per_step=1), engine.tokenizer)
    [(prompt, completion)] = learner.rows
    assert tokens(prompt) == BEFORE
    assert tokens(completion) == ["open", "a", "window", "<eos>"]
    ids = engine.tokenizer.apply_chat_template([*TALK, GOOD], return_tensors="pt", return_dict=False)
    labels = ids.clone()
    labels[:, : len(prompt)] = -100
    with torch.no_grad():
        expected = model(input_ids=ids, labels=labels).loss
    assert learner.step()["loss"] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("repeat", [True, False], ids=["prompt inside both sides", "prompt apart"])
def test_a_reward_reads_the_end_of_the_last_turn(reward_engine: Build, file: Callable[..., Path], repeat: bool) -> None:
    engine = reward_engine()
    tokens = engine.tokenizer.convert_ids_to_tokens
    row = (
        {"chosen": [*TALK, GOOD], "rejected": [*TALK, BAD]}
        if repeat
        else {"prompt": TALK, "chosen": [GOOD], "rejected": [BAD]}
    )
    groups = group_pairs(read_comparisons(file(row)), engine.roles.reward, engine.tokenizer, max_tokens=128)
    RewardModel(engine, groups, RewardModelConfig(prompts_per_step=1)).step()
    [(batch, _)] = engine.seen
    assert [tokens(prompt) for prompt in batch.prompts] == [BEFORE, BEFORE]
    assert [tokens(completion) for completion in batch.completions] == [
        ["open", "a", "window", "<eos>"],
        ["sleep", "now", "<eos>"],
    ]
