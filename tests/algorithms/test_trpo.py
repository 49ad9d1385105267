"""TRPO on the tiny model: its Fisher products by finite differences, its bound, and what it must not touch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.algorithms.conftest import WatchedEngine
from tuneful.algorithms import trpo
from tuneful.algorithms.trpo import TRPO, TRPOConfig
from tuneful.engines.optimization import Optimization
from tuneful.errors import ConfigError
from tuneful.models.adapters import LoRA
from tuneful.models.loading import load_tokenizer
from tuneful.models.roles import own_weights, policy_roles
from tuneful.records import Completion, Prompt
from tuneful.rewards.reward import Reward

Build = Callable[..., WatchedEngine]
SETTINGS: dict[str, Any] = {
    "num_steps": 4,
    "prompts_per_step": 4,
    "samples_per_prompt": 4,
    "max_new_tokens": 6,
    "kl_coef": 0.1,
    "optimization": Optimization(learning_rate=1e-2, schedule="constant"),
}


@pytest.fixture
def build(tiny_model_dir: Path) -> Build:
    """An adapter that has left its start, where half of its gradients are 0."""

    def engine(**settings: Any) -> WatchedEngine:
        roles = policy_roles(tiny_model_dir, value="head", lora=LoRA(rank=2), seed=1)
        assert roles.policy is not None
        torch.manual_seed(5)
        with torch.no_grad():
            for weight in roles.policy.weights.values():
                weight.add_(0.05 * torch.randn_like(weight))
        rate = SETTINGS["optimization"]
        return WatchedEngine(roles, load_tokenizer(tiny_model_dir), optimization=rate, **settings)

    return engine


def flat(engine: Any) -> Tensor:
    return torch.cat([weight.detach().flatten() for weight in own_weights(engine.roles.policy).values()])


def move(engine: Any, to: Tensor) -> None:
    weights = list(own_weights(engine.roles.policy).values())
    with torch.no_grad():
        for weight, part in zip(weights, torch.split(to, [w.numel() for w in weights]), strict=True):
            weight.copy_(part.view_as(weight))


def logprobs_by_transformers(engine: Any, rollout: Any) -> Tensor:
    """[M, V] before each completion token, row by row."""
    engine.roles.policy.activate()
    parts = []
    for prompt, completion in zip(rollout.prompts, rollout.completions, strict=True):
        logits = engine.roles.policy.model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        parts.append((logits.double() / rollout.temperature).log_softmax(-1))
    return torch.cat(parts)


@pytest.mark.parametrize("tokens", [40, 4096])
def test_a_fisher_product_is_the_change_of_the_kl_gradient(
    build: Build, prompts: list[Prompt], variety: Reward, tokens: int
) -> None:
    """F v = (gradient of KL(now, theta + e v) - that of KL(now, theta - e v)) / 2e, by transformers and autograd."""
    engine = build(tokens_per_microbatch=tokens)
    learner = TRPO(engine, prompts, variety, TRPOConfig(**SETTINGS, temperature=0.8))
    rollout = learner.collector.next_rollout()
    weights, start = list(own_weights(engine.roles.policy).values()), flat(engine)
    now = logprobs_by_transformers(engine, rollout).detach()

    def slope(theta: Tensor) -> Tensor:
        move(engine, theta)
        kl = (now.exp() * (now - logprobs_by_transformers(engine, rollout))).sum(-1).mean()
        return torch.cat([g.flatten() for g in torch.autograd.grad(kl, weights)])

    torch.manual_seed(2)
    for _ in range(3):
        v = torch.randn_like(start)
        v /= v.norm()
        numeric = (slope(start + 1e-2 * v) - slope(start - 1e-2 * v)) / 2e-2
        move(engine, start)
        ours = trpo.fisher_product(engine.roles.policy, rollout, weights, tokens, v)
        assert ours.norm() > 1e-4
        assert (ours - numeric).norm() < 0.02 * ours.norm()


def test_a_step_stays_within_its_bound_and_gains(build: Build, prompts: list[Prompt], variety: Reward) -> None:
    engine = build()
    learner = TRPO(engine, prompts, variety, TRPOConfig(**SETTINGS, max_kl=0.005))
    rollout = learner.collector.next_rollout()
    old = logprobs_by_transformers(engine, rollout).detach()
    metrics = trpo.update(engine, learner.old, rollout, learner.config, kl_coef=0.1, seed=0, shrunk=1.0)
    new = logprobs_by_transformers(engine, rollout).detach()
    kl = float((old.exp() * (old - new)).sum(-1).mean())
    assert metrics["accepted"] == 1
    assert metrics["update_kl"] == pytest.approx(kl, rel=1e-3)
    assert 0.001 < kl < 0.005
    assert metrics["surrogate_gain"] > 0
    assert metrics["cg_residual"] < 0.5


def test_the_value_function_is_fitted_and_does_not_touch_the_policy(
    build: Build, prompts: list[Prompt], variety: Reward
) -> None:
    moved = []
    losses = []
    for epochs in (0, 1, 30):
        engine = build()
        learner = TRPO(engine, prompts, variety, TRPOConfig(**SETTINGS, value_epochs=epochs))
        losses.append(learner.step().get("value_loss"))
        moved.append(flat(engine))
        assert engine.roles.value.head.weight.any() == (epochs > 0)
    assert torch.equal(moved[0], moved[1])
    assert torch.equal(moved[0], moved[2])
    assert losses[0] is None
    assert losses[2] < losses[1]  # the mean over epochs falls as they fit


def test_where_no_length_holds_nothing_moves(build: Build, prompts: list[Prompt], variety: Reward) -> None:
    """A bound so small that rounding alone is beyond it."""
    engine = build()
    before = flat(engine)
    metrics = TRPO(engine, prompts, variety, TRPOConfig(**SETTINGS, max_kl=1e-16)).step()
    assert metrics["accepted"] == metrics["update_kl"] == 0
    assert torch.equal(flat(engine), before)


def test_a_constant_reward_does_not_move_the_policy(build: Build, prompts: list[Prompt]) -> None:
    def constant(_: Sequence[Prompt], completions: Sequence[Completion]) -> Tensor:
        return torch.ones(len(completions))

    engine = build()
    before = flat(engine)
    config = TRPOConfig(**SETTINGS | {"kl_coef": 0.0}, lam=1.0, missing_eos_penalty=0.0)
    TRPO(engine, prompts, constant, config).step()
    assert_close(flat(engine), before, atol=1e-3, rtol=0)


def test_the_bound_shrinks_with_the_schedule(build: Build, prompts: list[Prompt], variety: Reward) -> None:
    """A quarter of the run is over after the first step of 4: the length is that for 3/4 of the KL. A warm-up longer
    than the run becomes a tenth of it, here nothing."""
    for warmup_steps in (0, 150):
        optimization = Optimization(learning_rate=1e-2, schedule="linear", warmup_steps=warmup_steps)
        config = TRPOConfig(**SETTINGS | {"optimization": optimization}, max_kl=0.004)
        learner = TRPO(build(), prompts, variety, config)
        assert [learner.step()["max_kl"] for _ in range(4)] == pytest.approx([0.004, 0.003, 0.002, 0.001])


def test_it_goes_on_from_its_state(build: Build, prompts: list[Prompt], variety: Reward, tmp_path: Path) -> None:
    one, other = (TRPO(build(), prompts, variety, TRPOConfig(**SETTINGS)) for _ in range(2))
    one.step()
    one.engine.save(tmp_path)
    state, expected = one.state(), one.step()
    other.engine.load(tmp_path)
    other.restore(state)
    assert other.step() == expected
    assert torch.equal(flat(other.engine), flat(one.engine))


def test_every_setting_changes_the_outcome(build: Build, prompts: list[Prompt], variety: Reward) -> None:
    felt = TRPOConfig(
        **SETTINGS
        | {
            "num_steps": 3,
            "prompts_per_step": 3,
            "max_grad_norm": 0.05,
            "max_kl": 0.3,  # so long a step that the first length does not hold
            "cg_residual": 1e-5,
            "optimization": Optimization(learning_rate=1e-2),
        },
        kl_target=1.0,
        kl_horizon=100,
    )
    alternatives: dict[str, Any] = {
        "num_steps": 4,
        "prompts_per_step": 4,
        "samples_per_prompt": 3,
        "max_new_tokens": 5,
        "max_prompt_tokens": 4,
        "temperature": 0.8,
        "kl_coef": 0.5,
        "kl_target": None,
        "kl_horizon": 50,
        "missing_eos_penalty": 3.0,
        "max_grad_norm": 0.01,
        "optimization": Optimization(learning_rate=5e-3),
        "seed": 1,
        "max_kl": 0.02,
        "damping": 1.0,
        "cg_iterations": 2,
        "cg_residual": 0.5,
        "tries": 1,
        "fisher_share": 0.5,
        "value_epochs": 2,
        "gamma": 0.9,
        "lam": 0.5,
    }

    def outcome(config: TRPOConfig) -> str:
        engine = build(total_steps=config.updates)
        engine.optimization = config.optimization
        learner = TRPO(engine, prompts, variety, config)
        for _ in range(3):
            learner.step()
        return str(engine.weight_hash())

    assert alternatives.keys() == {f.name for f in fields(TRPOConfig)}
    usual = outcome(felt)
    idle = [n for n, other in alternatives.items() if outcome(replace(felt, **{n: other})) == usual]
    assert not idle


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_kl", 0.0),
        ("damping", 0.0),
        ("cg_iterations", 0),
        ("cg_residual", 0.0),
        ("tries", 0),
        ("fisher_share", 0.0),
        ("lam", 2.0),
    ],
)
def test_a_wrong_setting_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"trpo\.{name}") as error:
        TRPOConfig(**{name: value})
    assert str(value) in str(error.value)
