"""Families run for real: SFT, reward model, PPO, save, reload, resume, each with its start-up checks.

All weights and adapters; a run that is cut off and goes on ends in the same weights, bit by bit, as one that was not.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

import tuneful.algorithms.start_up as start_up
from tests.families.families import REWARDS, TRAINED
from tests.families.test_read import plain_logprobs
from tests.pipeline.recipes import WORDS, stage_toml
from tuneful.data.jsonl import write_jsonl
from tuneful.engines.local import LocalEngine
from tuneful.generation.sampling import Sampling
from tuneful.models.loading import load_language_model, load_tokenizer
from tuneful.models.roles import Role, Roles
from tuneful.pipeline.context import Silent
from tuneful.pipeline.export import export
from tuneful.pipeline.recipe import Recipe, load_recipe
from tuneful.pipeline.run import run_recipe
from tuneful.records import Prompt

CASES = [(name, name, lora) for name in TRAINED for lora in (False, True)]
CASES += [("Llama", encoder, False) for encoder in REWARDS]
"""Policy, reward model, adapters."""


class Watching(Silent):
    """Keeps the notes; cuts the run off in the stage `stop` before its second step is saved."""

    def __init__(self, stop: str = "") -> None:
        self.notes: list[str] = []
        self.stop, self.now = stop, ""

    def stage(self, name: str, kind: str) -> None:
        self.now = name

    def step(self, done: int, total: int, metrics: Mapping[str, float]) -> None:
        if self.now == self.stop and metrics and done == 2:
            raise KeyboardInterrupt

    def note(self, text: str) -> None:
        self.notes.append(text)


def recipe(policy: Path, reward: Path, lora: bool, folder: Path) -> Recipe:
    """SFT, reward model and two steps of PPO. Only a decoder's reward model can be an adapter."""
    prompts = [f"{one} {other}" for one in WORDS for other in WORDS[:3]]
    write_jsonl(folder / "data.jsonl", ({"prompt": p, "chosen": "yes please", "rejected": "no no"} for p in prompts))
    data = folder / "data.jsonl"
    adapter = {"lora": {"rank": 4}} if lora else {}
    kind = json.loads((reward / "config.json").read_text())["model_type"]
    few = {"max_tokens": 64, "epochs": 1, "optimization": {"learning_rate": 0.01}}
    stages = [
        stage_toml("sft", algorithm="sft", model=policy, demonstrations=data, **few, **adapter),
        stage_toml(
            "reward",
            algorithm="reward",
            model=reward,
            comparisons=data,
            normalise_prompts=data,
            normalise_model=policy,
            normalise_samples=16,
            max_new_tokens=6,
            prompts_per_step=8,
            **few,
            **(adapter if kind in ("llama", "qwen3", "gpt2") else {}),
        ),
        stage_toml(
            "ppo",
            algorithm="ppo",
            model="@sft",
            prompts=data,
            reward="@reward",
            value="adapter" if lora else "head",
            num_steps=2,
            save_every=1,
            evaluate_every=8,
            evaluate_prompts=2,
            prompts_per_step=8,
            minibatches=1,
            epochs=1,
            max_new_tokens=6,
            tokens_per_microbatch=64,
            optimization={"learning_rate": 0.01},
            **adapter,
        ),
    ]
    splits = "splits = { reward = 0.4, rl = 0.3, dev = 0.2, test = 0.1 }\n"
    (folder / "recipe.toml").write_text(splits + "\n".join(stages))
    return load_recipe(folder / "recipe.toml")


def weights_in(model: Path) -> dict[str, Any]:
    (file,) = model.glob("*.safetensors")
    return load_file(file)


@pytest.mark.parametrize(("name", "reward", "lora"), CASES)
def test_every_stage(
    name: str,
    reward: str,
    lora: bool,
    folder_of: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(start_up, "NUM_ROLLOUTS", 16)
    run, out, other = recipe(folder_of(name), folder_of(reward), lora, tmp_path), tmp_path / "run", tmp_path / "whole"
    cut_off = Watching(stop="ppo")
    with pytest.raises(KeyboardInterrupt):
        run_recipe(run, out, display=cut_off)
    shutil.copytree(out, other)
    shutil.rmtree(other / "ppo")
    run_recipe(run, out)
    run_recipe(run, other)
    assert (out / "ppo" / "checkpoints" / "step-00000001").exists()
    resumed, whole = weights_in(out / "ppo" / "model"), weights_in(other / "ppo" / "model")
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[key], whole[key]) for key in whole)

    checks = {check["name"]: check for check in json.loads((out / "ppo" / "run.json").read_text())["checks"]}
    (kl,) = [check["value"] for text, check in checks.items() if text.startswith("KL(policy, reference)")]
    (drift,) = [check["value"] for text, check in checks.items() if "between sampler and trainer" in text]
    (batch,) = [check["value"] for text, check in checks.items() if "with its batch or padding" in text]
    assert kl < 1e-6  # rounding of two passes, where policy and reference are two models
    assert drift < 1e-5  # so the first ratios are 1, by no more than this
    assert batch < 1e-4
    steps = [json.loads(line) for line in (out / "ppo" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in steps if row["kind"] == "train"] == [1, 2]
    first = next(row for row in steps if row["kind"] == "train")
    assert (first["clip_fraction"], abs(first["approx_kl"]) < 1e-10) == (0, True)
    waves = [text for text in cut_off.notes if "none enters until all have" in text]
    assert (waves != []) == (name in ("T5", "BART"))

    export(out / "ppo" / "model", tmp_path / "plain", merge=True)
    kind: Any = AutoModelForSeq2SeqLM if name in ("T5", "BART") else AutoModelForCausalLM
    theirs = kind.from_pretrained(tmp_path / "plain", dtype=torch.float32)
    engine = LocalEngine(
        Roles(policy=Role("policy", load_language_model(out / "ppo" / "model"))), load_tokenizer(out / "ppo" / "model")
    )
    rollout = engine.sample([Prompt("hot tea"), Prompt("dog")], Sampling(num_samples=2, max_new_tokens=8), seed=0)
    for k, completion in enumerate(rollout.completions):
        expected = plain_logprobs(theirs, rollout.prompts[k], completion)
        assert_close(rollout.logprobs[k, : len(completion)], expected, atol=1e-4, rtol=0)


def test_evaluate_says_so_where_no_prompt_enters(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    """Of the tuned model, too: here the other one's rows enter."""
    write_jsonl(tmp_path / "data.jsonl", [{"prompt": word} for word in WORDS])
    before, after = folder_of("Mistral"), folder_of("Mistral with a window")
    asked = {"prompts": tmp_path / "data.jsonl", "max_new_tokens": 4, "limit": 4}
    stage = stage_toml("evaluate", do="evaluate", before=before, after=after, **asked)
    (tmp_path / "recipe.toml").write_text("splits = { rl = 0.5, test = 0.5 }\n" + stage)
    display = Watching()
    run_recipe(load_recipe(tmp_path / "recipe.toml"), tmp_path / "run", display=display)
    (told,) = [text for text in display.notes if "none enters until all have" in text]
    assert "layers of sliding_attention" in told


@pytest.mark.parametrize("algorithm", ["sft", "dpo", "orpo", "kto"])
@pytest.mark.parametrize("name", ["GPT-2", "BART"])
def test_long_rows_end_where_learned_positions_do(
    name: str, algorithm: str, folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    """128 positions and the default max_tokens of 1,024: the first loss is that of transformers on the cut row."""
    model, data = folder_of(name), tmp_path / "data.jsonl"
    asked = " ".join(WORDS * 10)
    write_jsonl(data, [{"prompt": asked, "chosen": "yes please", "rejected": "no no"}])
    settings = {{"sft": "demonstrations", "kto": "preferences"}.get(algorithm, "comparisons"): data}
    stage = stage_toml("train", algorithm=algorithm, model=model, **settings)
    (tmp_path / "recipe.toml").write_text(f"splits = {{ reward = 1.0 }}\n{stage}")
    run_recipe(load_recipe(tmp_path / "recipe.toml"), tmp_path / "run")
    metrics = json.loads((tmp_path / "run" / "train" / "metrics.jsonl").read_text())

    tokenizer = load_tokenizer(model)
    prompt, answer = (tokenizer.encode(text, add_special_tokens=False) for text in (asked, "yes please"))
    completion = [*answer, tokenizer.eos_token_id]
    row = [tokenizer.bos_token_id, *prompt[-(128 - 1 - len(completion)) :]]
    kind: Any = AutoModelForSeq2SeqLM if name == "BART" else AutoModelForCausalLM
    theirs = kind.from_pretrained(model, dtype=torch.float32)
    expected = plain_logprobs(theirs, row, completion)
    with pytest.raises(IndexError):
        plain_logprobs(theirs, [tokenizer.bos_token_id, *prompt], completion)
    if algorithm == "sft":
        assert metrics["loss"] == pytest.approx(-float(expected.mean()), rel=1e-4)
    else:
        said = metrics["desirable_logprob" if algorithm == "kto" else "chosen_logprob"]
        assert said == pytest.approx(float(expected.sum()), rel=1e-4)
