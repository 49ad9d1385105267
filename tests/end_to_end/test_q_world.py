"""Two tokens of {a, b}, reward 1 for "ab": the action values that DQN and ILQL learn, against their closed forms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.end_to_end.ladder import PROMPT, WIDTH, StringProblem, engine_for
from tuneful.algorithms.dqn import DQN, DQNConfig
from tuneful.algorithms.ilql import ILQL, ILQLConfig
from tuneful.engines.local import LocalEngine
from tuneful.engines.optimization import Optimization
from tuneful.engines.protocol import Batch
from tuneful.generation.rollout import Scored
from tuneful.generation.sampling import Sampling
from tuneful.models.q_heads import QHeads
from tuneful.records import Completion, Prompt

WORLD = StringProblem("ab", 2, beta=0.5, reward=lambda s: float(tuple(s) == ("a", "b")))
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in (1, 2))]
RATE = Optimization(learning_rate=1e-2)


def reward(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Tensor:
    return torch.tensor([WORLD.reward(c.text.split()) for c in completions])


def with_heads(seed: int, total_steps: int) -> LocalEngine:
    return engine_for(WORLD, seed, RATE, total_steps, heads=QHeads(WIDTH + 1, 5, seed=seed))


def q_of(engine: LocalEngine, said: str) -> dict[str, float]:
    """The smaller value of a and b after `said`."""
    ids = engine.tokenizer.convert_tokens_to_ids
    heads: Any = engine.roles.heads
    found: list[Tensor] = []

    def look(outputs: Any, rows: list[int]) -> Any:
        found.append(outputs.states[len(said)].detach())
        return outputs.logprobs.sum() * 0, {}

    batch = Batch(role="policy", prompts=[ids(["<bos>"])], completions=[ids([*said, "a", "<eos>"])], with_states=True)
    engine.forward_backward(batch, look)
    for weight in engine.parameters():
        weight.grad = None
    values = heads.least(found[0][None], torch.tensor([ids(["a", "b"])]))[0]
    return dict(zip("ab", values.tolist(), strict=True))


@pytest.mark.parametrize("seed", SEEDS)
def test_dqn_without_a_leash(seed: int) -> None:
    """Q*(., a) = 1 and Q*(., b) = 0 at the start, the other way round after an a; the greedy policy says ab."""
    config = DQNConfig(
        num_steps=60,
        prompts_per_step=1,
        samples_per_prompt=32,
        max_new_tokens=3,
        leash="none",
        top_k=2,
        reward_steps=1,
        updates_per_step=8,
        polyak=0.1,
        optimization=RATE,
        seed=seed,
    )
    engine = with_heads(seed, config.updates)
    learner = DQN(engine, [PROMPT], reward, config)
    for _ in range(config.num_steps):
        learner.step()
    assert q_of(engine, "") == pytest.approx({"a": 1, "b": 0}, abs=0.05)
    assert q_of(engine, "a") == pytest.approx({"a": 0, "b": 1}, abs=0.05)
    rollout = engine.sample([PROMPT], Sampling(num_samples=20, max_new_tokens=3), seed=0)
    assert set(rollout.texts) == {"a b"}


def assert_values_of_the_leash(engine: LocalEngine) -> None:
    """V(a) = beta log((e^(1 / beta) + 1) / 2) = Q(., a); what is drawn is the optimum, e^(R / beta) / sum."""
    after_a = 0.5 * math.log((math.e**2 + 1) / 2)
    assert q_of(engine, "") == pytest.approx({"a": after_a, "b": 0}, abs=0.05)
    assert q_of(engine, "a") == pytest.approx({"a": 0, "b": 1}, abs=0.05)
    rollout = engine.sample([PROMPT], Sampling(num_samples=4000, max_new_tokens=3), seed=0)
    assert rollout.texts.count("a b") / 4000 == pytest.approx(math.e**2 / (math.e**2 + 3), abs=0.04)


@pytest.mark.parametrize("reward_steps", [1, 4])
@pytest.mark.parametrize("seed", SEEDS)
def test_dqn_on_a_leash(seed: int, reward_steps: int) -> None:
    config = DQNConfig(
        num_steps=80,
        prompts_per_step=1,
        samples_per_prompt=32,
        max_new_tokens=3,
        kl_coef=WORLD.beta,
        top_k=2,
        reward_steps=reward_steps,
        updates_per_step=8,
        polyak=0.1,
        optimization=RATE,
        seed=seed,
    )
    engine = with_heads(seed, config.updates)
    learner = DQN(engine, [PROMPT], reward, config)
    for _ in range(config.num_steps):
        learner.step()
    assert_values_of_the_leash(engine)


@pytest.mark.parametrize("reward_steps", [1, 4])
@pytest.mark.parametrize("seed", SEEDS)
def test_dqn_from_stored_answers(seed: int, reward_steps: int) -> None:
    """All four strings equally often, and none of its own: the values are those of the leash, as when it samples."""
    config = DQNConfig(
        num_steps=80,
        offline=True,
        max_new_tokens=3,
        kl_coef=WORLD.beta,
        top_k=2,
        reward_steps=reward_steps,
        updates_per_step=8,
        completions_per_update=32,
        polyak=0.1,
        optimization=RATE,
        seed=seed,
    )
    engine = with_heads(seed, config.updates)
    ids = engine.tokenizer.convert_tokens_to_ids
    stored = [Scored(ids(["<bos>"]), ids([*said, "<eos>"]), WORLD.reward(said)) for said in WORLD.strings * 32]
    learner = DQN(engine, [PROMPT], reward, config, stored=stored)
    for _ in range(config.num_steps):
        learner.step()
    assert_values_of_the_leash(engine)


@pytest.mark.parametrize("tau", [0.5, 0.8])
@pytest.mark.parametrize("seed", SEEDS)
def test_ilql(tau: float, seed: int) -> None:
    """All four strings equally often. The expectile of 0 and 1 is tau, so V(a) = Q(., a) = tau; at 1/2 SARSA's."""
    config = ILQLConfig(
        completions_per_step=32,
        epochs=1,
        tau=tau,
        gamma=1.0,
        cql_coef=0.0,
        polyak=0.1,
        guide_scale=1000.0,
        top_k=2,
        optimization=RATE,
        seed=seed,
    )
    engine = with_heads(seed, 400)
    ids = engine.tokenizer.convert_tokens_to_ids
    scored = [
        Scored(ids(["<bos>"]), ids([*string, "<eos>"]), WORLD.reward(string)) for string in WORLD.strings * 8 * 400
    ]
    learner = ILQL(engine, scored, config)
    for _ in range(config.num_steps(len(scored))):
        metrics = learner.step()
    assert q_of(engine, "") == pytest.approx({"a": tau, "b": 0}, abs=0.05)
    assert q_of(engine, "a") == pytest.approx({"a": 0, "b": 1}, abs=0.05)
    assert metrics["policy_loss"] == pytest.approx(2 * math.log(2) / 3, abs=0.02)  # two coins in three tokens
    rollout = engine.sample([PROMPT], Sampling(num_samples=20, max_new_tokens=3), seed=0)
    assert set(rollout.texts) == {"a b"}
