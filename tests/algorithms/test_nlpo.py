"""NLPO on the tiny model: PPO where nothing is ruled out, and what the mask does where something is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.algorithms.conftest import WatchedEngine
from tests.algorithms.test_ppo import ALTERNATIVES, FELT
from tuneful.algorithms.nlpo import NLPO, NLPOConfig
from tuneful.algorithms.ppo import PPO, PPOConfig
from tuneful.engines.optimization import Optimization
from tuneful.errors import ConfigError
from tuneful.models.adapters import LoRA
from tuneful.models.loading import load_tokenizer
from tuneful.models.roles import policy_roles
from tuneful.records import Prompt
from tuneful.rewards.reward import Reward

Build = Callable[..., Any]
SETTINGS: dict[str, Any] = {
    "num_steps": 4,
    "prompts_per_step": 4,
    "samples_per_prompt": 2,
    "max_new_tokens": 6,
    "epochs": 2,
    "kl_coef": 0.1,
}
EOS = 2
ROWS = [([3, 4], [5, 6, 7]), ([8], [9, 3]), ([4], [4])]
"""Pretraining rows."""


@pytest.fixture(params=[None, LoRA(rank=2)], ids=["all weights", "adapter"])
def build(request: pytest.FixtureRequest, tiny_model_dir: Path) -> Build:
    def engine() -> WatchedEngine:
        roles = policy_roles(tiny_model_dir, value="head", lora=request.param)
        rate = Optimization(learning_rate=2e-2, schedule="constant")
        return WatchedEngine(roles, load_tokenizer(tiny_model_dir), optimization=rate)

    return engine


def test_with_the_whole_probability_it_is_ppo(build: Build, prompts: list[Prompt], variety: Reward) -> None:
    """Step by step, bit for bit."""
    masked = NLPO(build(), prompts, variety, NLPOConfig(**SETTINGS, top_p=1.0))
    plain = PPO(build(), prompts, variety, PPOConfig(**SETTINGS))
    for _ in range(3):
        told = masked.step()
        assert told.pop("allowed") == 0
        assert told == plain.step()
        assert masked.engine.weight_hash() == plain.engine.weight_hash()


def test_with_pretraining_rows_too_it_is_ppo(policy_engine: Build, prompts: list[Prompt], variety: Reward) -> None:
    settings = SETTINGS | {"ptx_coef": 0.5, "ptx_rows": 1}
    masked = NLPO(policy_engine(), prompts, variety, NLPOConfig(**settings, top_p=1.0), ROWS)
    plain = PPO(policy_engine(), prompts, variety, PPOConfig(**settings), ROWS)
    told = masked.step()
    assert told["ptx_loss"] > 0
    assert told == plain.step() | {"allowed": 0}
    assert masked.engine.weight_hash() == plain.engine.weight_hash()


@pytest.mark.parametrize(("coef", "rows"), [(1.0, ()), (0.0, [([3], [4])])])
def test_pretraining_rows_and_their_weight_go_together(
    policy_engine: Build, prompts: list[Prompt], variety: Reward, coef: float, rows: Any
) -> None:
    with pytest.raises(ConfigError, match=r"nlpo\.ptx_coef and pretraining go together"):
        NLPO(policy_engine(), prompts, variety, NLPOConfig(**SETTINGS, ptx_coef=coef), rows)


def test_only_the_nucleus_of_the_policy_as_it_was_is_drawn_from(
    build: Build, prompts: list[Prompt], variety: Reward
) -> None:
    """In the third step the mask is the policy of the first, though that has moved since."""
    engine = build()
    learner = NLPO(engine, prompts, variety, NLPOConfig(**SETTINGS, top_p=0.5, min_tokens=3, mask_every=5))
    first = build().roles.policy
    for _ in range(2):
        learner.step()
    rollout = learner.collector.next_rollout(learner._choose)
    assert rollout.allowed is not None
    first.activate()
    for row, completion in enumerate(rollout.completions):
        prompt = rollout.prompts[row]
        logits = first.model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        for t, token in enumerate(completion):
            probs, order = logits[t].softmax(-1).sort(descending=True)
            count = max(3, 1 + int((probs.cumsum(-1) < 0.5).sum()))
            assert set(rollout.allowed[row][t]) == {*order[:count].tolist(), EOS}
            assert token in rollout.allowed[row][t]


def test_of_special_tokens_only_the_end_is_always_left(
    policy_engine: Build, prompts: list[Prompt], variety: Reward, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two words hold .8, so pad, begin, unknown and roles are ruled out; a pad that holds .9 is in as a word is."""
    engine = policy_engine()
    learner = NLPO(engine, prompts, variety, NLPOConfig(**SETTINGS, top_p=0.8, min_tokens=1))
    choose: Any = learner._choose(prompts)
    tokenizer = engine.tokenizer
    words, specials = tokenizer.convert_tokens_to_ids(["door", "house"]), set(tokenizer.all_special_ids)
    assert len(specials) == 6 and tokenizer.eos_token_id == EOS
    of_mask = torch.full((2, len(tokenizer)), 1e-4)
    of_mask[0, words] = torch.tensor([0.6, 0.3])
    of_mask[1, tokenizer.pad_token_id] = 0.9
    monkeypatch.setattr(choose.beside, "logits", lambda rows: of_mask.log())
    left = choose(torch.zeros_like(of_mask), torch.empty(0), torch.arange(2)).isfinite()
    assert [row.nonzero().flatten().tolist() for row in left] == [sorted([EOS, *words]), [tokenizer.pad_token_id, EOS]]


def test_the_first_update_has_ratio_1_among_what_was_left(build: Build, prompts: list[Prompt], variety: Reward) -> None:
    engine = build()
    learner = NLPO(engine, prompts, variety, NLPOConfig(**SETTINGS, top_p=0.3, min_tokens=1, mask_every=1))
    for step in range(3):
        metrics = learner.step()
        _, first = engine.seen[2 * step]
        assert first["approx_kl"] < 1e-9
        assert first["clip_fraction"] == 0
        assert 1 <= metrics["allowed"] < 40


def test_the_kl_is_that_of_the_whole_policy(build: Build, prompts: list[Prompt], variety: Reward) -> None:
    """At the start policy and reference are one; masked against whole they would be far apart."""
    learner = NLPO(build(), prompts, variety, NLPOConfig(**SETTINGS, top_p=0.3, min_tokens=1))
    assert abs(learner.step()["kl"]) < 1e-4


def test_the_mask_goes_on_after_a_resume(build: Build, prompts: list[Prompt], variety: Reward, tmp_path: Path) -> None:
    """It was refreshed before the checkpoint and is not refreshed after it."""
    config = NLPOConfig(**SETTINGS, top_p=0.5, min_tokens=3, mask_every=3)
    one, other = (NLPO(build(), prompts, variety, config) for _ in range(2))
    for _ in range(2):
        one.step()
    one.engine.save(tmp_path)
    state, expected = one.state(), one.step()
    other.engine.load(tmp_path)
    other.restore(state)
    assert other.step() == expected
    assert other.engine.weight_hash() == one.engine.weight_hash()


@pytest.mark.parametrize(
    ("name", "value"), [("top_p", 0.0), ("top_p", 1.5), ("min_tokens", 0), ("mask_every", 0), ("kl_estimator", "k2")]
)
def test_a_wrong_setting_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"nlpo\.{name}"):
        NLPOConfig(**{name: value})


def test_every_setting_changes_the_outcome(policy_engine: Build, prompts: list[Prompt], variety: Reward) -> None:
    """All but `kl_estimator`, which has one value here."""
    of_ppo = {f.name: getattr(FELT, f.name) for f in fields(FELT)} | {"epochs": 3, "max_update_kl": 1.0}
    felt = NLPOConfig(**of_ppo, top_p=0.5, min_tokens=2, mask_every=1)
    alternatives: dict[str, Any] = ALTERNATIVES | {"top_p": 0.9, "min_tokens": 70, "mask_every": 3}
    del alternatives["kl_estimator"]
    assert alternatives.keys() == {f.name for f in fields(NLPOConfig)} - {"kl_estimator"}

    def outcome(config: NLPOConfig) -> str:
        engine = policy_engine(optimization=config.optimization, total_steps=config.updates)
        learner = NLPO(engine, prompts, variety, config, ROWS if config.ptx_coef > 0 else ())
        for _ in range(3):
            learner.step()
        return str(engine.weight_hash())

    mixed = replace(felt, ptx_coef=1.0)
    bases = {name: mixed if name == "ptx_rows" else felt for name in alternatives}
    usual = {base: outcome(base) for base in (felt, mixed)}
    assert [n for n, base in bases.items() if outcome(replace(base, **{n: alternatives[n]})) == usual[base]] == []


def test_another_engine_is_refused(prompts: list[Prompt], variety: Reward) -> None:
    class Elsewhere:
        pass

    engine: Any = Elsewhere()
    with pytest.raises(ConfigError, match="nlpo needs the LocalEngine"):
        NLPO(engine, prompts, variety, NLPOConfig())


def test_a_mask_follows_and_stays(build: Build) -> None:
    engine = build()
    learner = NLPO(engine, [Prompt("hello")], lambda _, c: torch.zeros(len(c)), NLPOConfig(**SETTINGS))
    assert engine.beside.keys() == {f"mask.{name}" for name in learner_weights(learner)}
    before = [weight.clone() for weight in engine.beside.values()]
    with torch.no_grad():
        for weight in engine.roles.policy.weights.values():
            weight.add_(1.0)
    for weight, then in zip(engine.beside.values(), before, strict=True):
        assert_close(weight, then)


def learner_weights(learner: NLPO) -> list[str]:
    role = learner.mask_policy
    named: dict[str, Tensor] = dict(role.model.named_parameters())
    return [name for name in named if role.adapters is None or ".mask." in name]
