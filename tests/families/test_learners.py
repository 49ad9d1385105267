"""Every learner as a stage on an encoder-decoder, with all weights and with adapters: it starts at its reference, goes
on from where it was killed bit by bit, and leaves a model that answers as transformers' plain pass says.

SFT, a reward model and PPO in one pipeline are in test_run.py; the learners on a Llama in tests/pipeline.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from torch.testing import assert_close
from transformers import AutoModelForSeq2SeqLM

from tests.pipeline.recipes import stage_toml
from tests.pipeline.test_learners import BY_VALUE, LORA, OWN, recipe, weights_in
from tuneful.algorithms import start_up
from tuneful.errors import ConfigError
from tuneful.evaluation import plots
from tuneful.generation.sampling import Sampling
from tuneful.pipeline.answers import engine_of
from tuneful.pipeline.context import Silent
from tuneful.pipeline.learner_inputs import ON_POLICY
from tuneful.pipeline.run import run_recipe
from tuneful.records import Prompt

NAMES = ("T5", "BART")
QUICK: dict[str, dict[str, Any]] = OWN | {
    "trpo": {"value_epochs": 1, "cg_iterations": 2, "tries": 2},
    "dqn": {"completions_per_update": 4, "updates_per_step": 1},
}
OFFLINE: dict[str, dict[str, Any]] = {
    "dpo": {"pairs_per_step": 3},
    "dpo, robust": {"pairs_per_step": 3, "loss": "robust", "label_noise": 0.1},
    "dpo, ipo": {"pairs_per_step": 3, "loss": "ipo", "beta": 0.25},
    "orpo": {"pairs_per_step": 3},
    "simpo": {"pairs_per_step": 3},
    "kto": {"answers_per_step": 6},
    "ilql": {"completions_per_step": 6},
}
STARTS = {"dpo": log(2), "dpo, robust": log(2), "dpo, ipo": 4.0, "kto": 0.5}
"""The loss where policy and reference are one; IPO's is (1 / 2 beta)^2."""
CASES = [(one, lora) for one in (*ON_POLICY, *OFFLINE) for lora in (False, True) if lora or one != "trpo"]
SAMPLING = Sampling(num_samples=2, max_new_tokens=6)
UNFIT = {
    "value": ({"value": "model"}, 'value = "model" cannot follow a {}, an encoder-decoder, .* "head" or "adapter"'),
    "value_from": ({"value": "adapter", "value_from": "@reward", "lora": LORA}, "value_from: .* of a {} .* leave"),
    "share_base": ({"share_base": True, "reward": "@reward", "lora": LORA}, "share_base: .* of a {} .* leave"),
    "recompute_layers": ({"recompute_layers": True}, "recompute_layers: .* is a {}; leave recompute_layers out"),
    "shard": ({"shard": True}, "shard: .* is a {}; leave shard out"),
}
"""Settings that are refused, and what is said."""


class Killed(Silent):
    """Keeps the run's folder as it is when the second step of `tune` is done and not saved yet."""

    def __init__(self, run: Path, kept: Path) -> None:
        self.run, self.kept, self.now = run, kept, ""

    def stage(self, name: str, kind: str) -> None:
        self.now = name

    def step(self, done: int, total: int, metrics: Mapping[str, float]) -> None:
        if self.now == "tune" and metrics and done == 2:
            shutil.copytree(self.run, self.kept)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few answers before the first step, no curves in reports."""
    monkeypatch.setattr(start_up, "NUM_ROLLOUTS", 8)
    monkeypatch.setattr(plots, "over_steps", lambda *_, **__: "")


def tuned(learner: str, model: Path, data: Path, *, lora: bool) -> str:
    settings = {"model": model, "save_every": 1, "optimization": {"learning_rate": 0.01}}
    settings |= {"lora": LORA} if lora else {}
    if learner in OFFLINE:
        source = "preferences" if learner == "kto" else "comparisons"
        return stage_toml("tune", algorithm=learner.partition(",")[0], **settings, **OFFLINE[learner], **{source: data})
    settings |= {name: value for name, value in QUICK[learner].items() if name != "lora"}
    settings |= {"prompts": data, "reward": "shorter", "num_steps": 2, "prompts_per_step": 4, "max_new_tokens": 5}
    return stage_toml("tune", algorithm=learner, evaluate_every=8, evaluate_prompts=2, **settings)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("learner", "lora"), CASES)
def test_a_stage(
    learner: str, lora: bool, name: str, folder_of: Callable[[str], Path], data: Path, tmp_path: Path
) -> None:
    run, out, again = recipe(tmp_path, tuned(learner, folder_of(name), data, lora=lora)), tmp_path / "a", tmp_path / "b"
    run_recipe(run, out, display=Killed(out, again))
    assert not (again / "tune" / "model").exists()
    run_recipe(run, again)
    logs = [
        [json.loads(line) for line in (one / "tune" / "metrics.jsonl").read_text().splitlines()] for one in (out, again)
    ]
    rows, resumed = ([{k: v for k, v in row.items() if k != "seconds"} for row in log] for log in logs)
    assert resumed == rows
    straight, gone_on = weights_in(out / "tune" / "model"), weights_in(again / "tune" / "model")
    assert gone_on.keys() == straight.keys()
    assert all(torch.equal(gone_on[key], straight[key]) for key in straight)

    first = next(row for row in rows if row.get("kind", "train") == "train")
    if learner in ON_POLICY:
        checks = {check["name"]: check for check in json.loads((out / "tune" / "run.json").read_text())["checks"]}
        (kl,) = [check["value"] for text, check in checks.items() if text.startswith("KL(policy, reference)")]
        (drift,) = [check["value"] for text, check in checks.items() if "between sampler and trainer" in text]
        assert kl < 1e-6
        assert drift < 1e-5  # so the first ratios are 1, by no more than this
        assert first.get("clip_fraction", 0) == 0
        if learner not in BY_VALUE:  # of which the KL is that of what it draws from, the likeliest tokens alone
            assert abs(first["kl"]) < 1e-4
    elif learner in STARTS:
        assert first["loss"] == pytest.approx(STARTS[learner], abs=1e-3)
    assert_answers(again / "tune" / "model", folder_of(name) if lora else None)


@torch.no_grad()
def assert_answers(folder: Path, base: Path | None) -> None:
    """What is loaded from `folder` answers, with the log-probabilities of transformers' and PEFT's own model."""
    engine = engine_of(str(folder), note=lambda _: None)
    theirs: Any = AutoModelForSeq2SeqLM.from_pretrained(folder if base is None else base, dtype=torch.float32)
    if base is not None:
        theirs = PeftModel.from_pretrained(theirs, folder)
    rollout = engine.sample([Prompt("hot tea"), Prompt("dog")], SAMPLING, seed=0)
    proposing = theirs
    if engine.guide is not None and engine.guide.base is not None:
        proposing = AutoModelForSeq2SeqLM.from_pretrained(base or engine.guide.base.model.name_or_path)
    for row, completion in enumerate(rollout.completions):
        logprobs, states = plain_pass(theirs.eval(), rollout.prompts[row], completion)
        drawn = logprobs
        if engine.guide is not None:
            proposed = logprobs if proposing is theirs else plain_pass(proposing, rollout.prompts[row], completion)[0]
            drawn = by_value(engine.guide, proposed, states)
        said = torch.tensor(completion)[:, None]
        assert_close(rollout.logprobs[row, : len(completion)], logprobs.gather(-1, said).squeeze(-1), atol=1e-4, rtol=0)
        sampled = rollout.sampled_logprobs[row, : len(completion)]
        assert_close(sampled, drawn.gather(-1, said).squeeze(-1), atol=1e-4, rtol=0)


def plain_pass(model: Any, prompt: list[int], completion: list[int]) -> tuple[Tensor, Tensor]:
    """Logprobs [T, V] and the decoder's states [T, d] before the tokens of one row, by transformers alone."""
    config = model.config
    begun = torch.tensor([[config.decoder_start_token_id, *completion[:-1]]])
    asked = torch.tensor([[*prompt, config.eos_token_id]])
    out = model(input_ids=asked, decoder_input_ids=begun, output_hidden_states=True)
    return out.logits[0].log_softmax(-1), out.decoder_hidden_states[-1][0]


def by_value(guide: Any, base: Tensor, states: Tensor, *, epsilon: float = 0.0) -> Tensor:
    """Logprobs [T, V] of base + scale * (Q - V) over the likeliest tokens of the base, mixed with those alone."""
    heads = guide.heads.target if guide.target else guide.heads.q
    advantage = torch.minimum(*(head(states) for head in heads)) - guide.heads.v(states)
    out = base.topk(min(guide.top_k, base.shape[-1])).values[:, -1:] > base
    weighed, alone = base + guide.scale * advantage, base
    among, proposed = (one.masked_fill(out, -torch.inf).softmax(-1) for one in (weighed, alone))
    return ((1 - epsilon) * among + epsilon * proposed).log()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("setting", UNFIT)
def test_what_cannot_be_is_said_before_anything_is_loaded(
    setting: str, name: str, folder_of: Callable[[str], Path], data: Path, tmp_path: Path
) -> None:
    """Of the last stage, whose model the first one will have made."""
    more, told = UNFIT[setting]
    model = folder_of(name)
    stages = [
        stage_toml("sft", algorithm="sft", model=model, demonstrations=data),
        stage_toml(
            "reward", algorithm="reward", model="@sft", comparisons=data, normalise_prompts=data, normalise_model=model
        ),
        stage_toml("tune", algorithm="ppo", model="@sft", prompts=data, **{"reward": "shorter"} | more),
    ]
    with pytest.raises(ConfigError, match=f"recipe.toml: stage tune: {told.format(name.lower())}") as error:
        run_recipe(recipe(tmp_path, *stages), tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "sft").exists()


@pytest.mark.parametrize("name", NAMES)
def test_adapters_on_a_reward_model_are_refused_before_the_stages_before_it(
    name: str, folder_of: Callable[[str], Path], data: Path, tmp_path: Path
) -> None:
    model = folder_of(name)
    judging = {"comparisons": data, "normalise_prompts": data, "normalise_model": model, "lora": LORA}
    stages = [
        stage_toml("sft", algorithm="sft", model=model, demonstrations=data),
        stage_toml("reward", algorithm="reward", model="@sft", **judging),
    ]
    with pytest.raises(ConfigError, match="stage reward: lora on an encoder reward model is not supported; leave lora"):
        run_recipe(recipe(tmp_path, *stages), tmp_path / "run")
    assert not (tmp_path / "run" / "sft").exists()
