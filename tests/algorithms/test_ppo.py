"""PPO on the tiny model: what the first update must look like, what each setting does, what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from tuneful.algorithms.on_policy import minibatches
from tuneful.algorithms.ppo import PPO, PPOConfig
from tuneful.engines.optimization import Optimization
from tuneful.errors import ConfigError
from tuneful.records import Completion, Prompt
from tuneful.rewards.reward import Reward

Build = Callable[..., Any]
SMALL = PPOConfig(num_steps=4, prompts_per_step=4, samples_per_prompt=2, max_new_tokens=6, epochs=1, kl_coef=0.1)


def constant(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Tensor:
    return torch.ones(len(completions))


def policy_weights(engine: Any) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in engine.roles.policy.weights.items()}


def test_the_first_minibatch_has_ratio_1(policy_engine: Build, prompts: list[Prompt], variety: Reward) -> None:
    engine = policy_engine()
    PPO(engine, prompts, variety, replace(SMALL, epochs=2, temperature=0.7)).step()
    (_, first), (_, second) = engine.seen
    assert first["clip_fraction"] == 0
    assert first["approx_kl"] < 1e-9  # k3 of a ratio r is about (r - 1)^2 / 2
    # At ratio 1 the loss is minus the mean advantage, which whitening has made 0.
    assert abs(first["policy_loss"]) < 1e-6
    assert second["approx_kl"] > 1e-5


def test_a_constant_reward_does_not_move_the_policy(policy_engine: Build, prompts: list[Prompt]) -> None:
    # Without KL, with lambda 1 and values of 0, every return and so every advantage is 1, and 0 once whitened.
    config = replace(SMALL, kl_coef=0.0, lam=1.0, value_coef=0.0, missing_eos_penalty=0.0)
    engine = policy_engine()
    before = policy_weights(engine)
    metrics = PPO(engine, prompts, constant, config).step()
    assert metrics["grad_norm"] < 1e-6
    # Adam turns any gradient into a step of the learning rate, so weights are compared where there is none at all.
    plain = policy_engine(optimization=Optimization(learning_rate=1e-2, adam_eps=1.0))
    PPO(plain, prompts, constant, config).step()
    for name, weight in policy_weights(plain).items():
        torch.testing.assert_close(weight, before[name], atol=1e-7, rtol=0)


def test_the_value_head_learns_a_constant_reward(policy_engine: Build, prompts: list[Prompt]) -> None:
    engine = policy_engine()
    config = replace(SMALL, kl_coef=0.0, value_coef=1.0, value_clip=0.0, epochs=4, lam=1.0, missing_eos_penalty=0.0)
    learner = PPO(engine, prompts, constant, config)
    seen = [learner.step() for _ in range(12)]
    assert seen[0]["value"] == 0
    assert seen[-1]["value"] == pytest.approx(1, abs=0.1)


def test_each_epoch_covers_every_row_once(policy_engine: Build, prompts: list[Prompt], variety: Reward) -> None:
    config = replace(SMALL, epochs=3, minibatches=3)
    group = [0, 0, 1, 1, 2, 2, 3, 3]
    drawn = list(minibatches(group, epochs=3, parts=3, seed=5))
    assert [len(rows) for rows in drawn] == [4, 2, 2] * 3
    epochs = [[row for rows in drawn[3 * e : 3 * e + 3] for row in rows] for e in range(3)]
    assert all(sorted(epoch) == list(range(8)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert drawn == list(minibatches(group, epochs=3, parts=3, seed=5))
    assert drawn != list(minibatches(group, epochs=3, parts=3, seed=6))

    engine = policy_engine()
    PPO(engine, prompts, variety, config).step()
    told = Counter(
        (tuple(p), tuple(c)) for batch, _ in engine.seen for p, c in zip(batch.prompts, batch.completions, strict=True)
    )
    assert len(engine.seen) == engine.updates == 9
    assert sum(told.values()) == 24
    assert all(count % 3 == 0 for count in told.values())


@pytest.mark.parametrize(
    ("prompts", "samples", "parts", "sizes", "prefixes"),
    [
        pytest.param(64, 4, 4, [64] * 4, 64, id="as many prompts in each"),
        pytest.param(5, 2, 2, [6, 4], 5, id="3 prompts and 2"),
        pytest.param(5, 8, 4, [16, 8, 8, 8], 5, id="2 prompts, and 1 in each other"),
        pytest.param(4, 3, 4, [3] * 4, 4, id="a prompt in each"),
        # 12 rows cut at 2, 4, 7 and 9, prompts end at 4 and 8: only the third part has rows of two.
        pytest.param(3, 4, 5, [2, 2, 3, 2, 3], 6, id="fewer prompts than minibatches"),
        pytest.param(1, 5, 2, [2, 3], 2, id="one prompt"),
        pytest.param(2, 1, 2, [1, 1], 2, id="rows alone"),
    ],
)
def test_a_minibatch_has_whole_prompts(prompts: int, samples: int, parts: int, sizes: list[int], prefixes: int) -> None:
    """prefixes: prompts of each minibatch, added up over an epoch."""
    group = [prompt for prompt in range(prompts) for _ in range(samples)]
    drawn = list(minibatches(group, epochs=3, parts=parts, seed=0))
    for epoch in (drawn[:parts], drawn[parts : 2 * parts], drawn[2 * parts :]):
        assert [len(rows) for rows in epoch] == sizes
        assert sum(len({group[row] for row in rows}) for rows in epoch) == prefixes
        assert sorted(row for rows in epoch for row in rows) == list(range(prompts * samples))


def test_rows_of_different_prompts_are_drawn_as_ever() -> None:
    """What 856725c drew: runs go on, and old ones can be made again."""
    expected = [[6, 5, 4], [1, 2], [0, 3], [5, 2, 1], [6, 4], [3, 0]]
    assert list(minibatches(range(7), epochs=2, parts=3, seed=5)) == expected


def test_the_policy_is_given_all_samples_of_a_prompt_at_once(
    policy_engine: Build, prompts: list[Prompt], variety: Reward
) -> None:
    """4 different prompts, 2 of them in each of 2 minibatches; torn apart, some minibatch has 3."""
    assert len({prompt.text for prompt in prompts[:4]}) == 4
    engine = policy_engine()
    PPO(engine, prompts, variety, replace(SMALL, prompts_per_step=4, minibatches=2, epochs=3)).step()
    assert [sorted(Counter(map(tuple, batch.prompts)).values()) for batch, _ in engine.seen] == [[2, 2]] * 6


def test_micro_batches_do_not_change_the_update(policy_engine: Build, prompts: list[Prompt], variety: Reward) -> None:
    whole, cut = policy_engine(), policy_engine(tokens_per_microbatch=20)
    for engine in (whole, cut):  # Adam's first step is the gradient's sign; a large epsilon keeps its size
        engine.optimization = Optimization(learning_rate=1.0, schedule="constant", adam_eps=1.0)
    first, second = (PPO(engine, prompts, variety, SMALL).step() for engine in (whole, cut))
    assert first == pytest.approx(second, abs=1e-5)
    for name, weight in policy_weights(cut).items():
        torch.testing.assert_close(weight, policy_weights(whole)[name], atol=1e-5, rtol=1e-4)


def test_the_metrics_of_a_step(policy_engine: Build, prompts: list[Prompt], variety: Reward) -> None:
    metrics = PPO(policy_engine(), prompts, variety, SMALL).step()
    assert set(metrics) == set(
        "policy_loss value_loss entropy clip_fraction approx_kl grad_norm reward kl kl_coef length_tokens "
        "eos_share value explained_variance score_total ratio_mean ratio_var value_clip_fraction".split()
    )
    assert metrics["ratio_mean"] == pytest.approx(1, abs=1e-5)  # in a first update
    assert metrics["ratio_var"] == pytest.approx(0, abs=1e-8)
    assert metrics["value_clip_fraction"] == 0
    vocabulary = 82
    assert 0.9 * torch.tensor(vocabulary).log() < metrics["entropy"] <= torch.tensor(vocabulary).log()
    assert abs(metrics["kl"]) < 1e-4
    assert metrics["kl_coef"] == 0.1
    assert 1 <= metrics["length_tokens"] <= 6
    assert 0 <= metrics["eos_share"] <= 1
    assert 0 <= metrics["reward"] <= 6
    assert metrics["explained_variance"] == pytest.approx(0, abs=1e-6)  # the value head starts at 0
    assert metrics["grad_norm"] > 0


def test_a_missing_end_costs_its_penalty(policy_engine: Build, prompts: list[Prompt]) -> None:
    free, paid = (
        PPO(policy_engine(), prompts, constant, replace(SMALL, missing_eos_penalty=penalty)).step()
        for penalty in (0.0, 2.0)
    )
    assert free["reward"] == 1.0
    assert paid["reward"] == pytest.approx(1.0 - 2.0 * (1 - paid["eos_share"]))


def test_the_kl_controller_is_told_the_kl(policy_engine: Build, prompts: list[Prompt], variety: Reward) -> None:
    # The KL of the first step is 0, so its error is clipped at -.2: .1 (1 - .2 * 8 / 100) = .0984.
    config = replace(SMALL, kl_target=1e-3, kl_horizon=100)
    learner = PPO(policy_engine(), prompts, variety, config)
    assert learner.step()["kl_coef"] == 0.1
    seen = [learner.step() for _ in range(3)]
    assert seen[0]["kl_coef"] == pytest.approx(0.0984)
    for now, then in pairwise(seen):
        assert now["score_total"] == pytest.approx(now["reward"] - now["kl_coef"] * now["kl"], abs=1e-5)
        error = min(max(now["kl"] / 1e-3 - 1, -0.2), 0.2)
        assert then["kl_coef"] == pytest.approx(now["kl_coef"] * (1 + error * 8 / 100))
    restored = PPO(policy_engine(), prompts, variety, config)
    restored.restore(learner.state())
    assert restored.collector.kl.coef == learner.collector.kl.coef
    assert restored.collector.steps == 4


def test_the_kl_penalty_holds_the_policy(policy_engine: Build, prompts: list[Prompt], variety: Reward) -> None:
    def final_kl(kl_coef: float) -> float:
        engine = policy_engine()
        learner = PPO(engine, prompts, variety, replace(SMALL, kl_coef=kl_coef, epochs=2))
        for _ in range(8):
            learner.step()
        rollout = learner.collector.rollout(prompts, seed=1)
        return float(engine.kl(rollout)[0].mean())

    assert final_kl(20.0) < 0.5 * final_kl(0.0)


def test_an_entropy_bonus_keeps_entropy(policy_engine: Build, prompts: list[Prompt], variety: Reward) -> None:
    def entropy(entropy_coef: float) -> float:
        learner = PPO(policy_engine(), prompts, variety, replace(SMALL, entropy_coef=entropy_coef, epochs=4))
        return [learner.step()["entropy"] for _ in range(6)][-1]

    assert entropy(1.0) > entropy(0.0) + 0.01


# Settings under which every one of the alternatives below is felt within three steps.
FELT = PPOConfig(
    num_steps=3,
    prompts_per_step=3,
    samples_per_prompt=2,
    max_new_tokens=6,
    epochs=2,
    kl_coef=0.1,
    kl_target=1.0,
    kl_horizon=100,
    clip=0.05,
    value_clip=0.05,
    max_grad_norm=0.5,
    optimization=Optimization(learning_rate=1e-2),
)
ALTERNATIVES: dict[str, Any] = {
    "num_steps": 4,
    "prompts_per_step": 4,
    "samples_per_prompt": 3,
    "max_new_tokens": 5,
    "max_prompt_tokens": 4,
    "temperature": 0.8,
    "epochs": 1,
    "minibatches": 2,
    "clip": 0.3,
    "value_clip": 0.0,
    "value_coef": 0.5,
    "entropy_coef": 0.01,
    "gamma": 0.9,
    "lam": 0.5,
    "kl_coef": 0.5,
    "kl_target": None,
    "kl_horizon": 50,
    "missing_eos_penalty": 3.0,
    "max_grad_norm": 0.1,
    "optimization": Optimization(learning_rate=5e-3),
    "seed": 1,
    "max_update_kl": 1e-9,
    "kl_estimator": "k2",
    "whiten_rewards": True,
    "whiten_advantages": False,
    "ptx_coef": 0.5,
    "ptx_rows": 1,
}


def test_every_setting_changes_the_outcome(policy_engine: Build, prompts: list[Prompt], variety: Reward) -> None:
    def outcome(config: PPOConfig) -> str:
        engine = policy_engine(optimization=config.optimization, total_steps=config.updates)
        pretraining = [([3, 4], [5, 6, 7]), ([8], [9, 3]), ([4], [4])] if config.ptx_coef > 0 else ()
        learner = PPO(engine, prompts, variety, config, pretraining)
        for _ in range(3):
            learner.step()
        return str(engine.weight_hash())

    assert ALTERNATIVES.keys() == {f.name for f in fields(PPOConfig)}
    usual = outcome(FELT)
    assert outcome(FELT) == usual
    mixed = replace(FELT, ptx_coef=1.0)
    longer = replace(FELT, epochs=3)  # in which an update is left to be left out
    bases = {"ptx_rows": (mixed, outcome(mixed)), "max_update_kl": (longer, outcome(longer))}
    idle = []
    for name, other in ALTERNATIVES.items():
        base, expected = bases.get(name, (FELT, usual))
        if outcome(replace(base, **{name: other})) == expected:
            idle.append(name)
    assert not idle


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, 0) for name in ("num_steps", "prompts_per_step", "samples_per_prompt", "max_new_tokens", "epochs")),
        ("max_prompt_tokens", 0),
        ("minibatches", 0),
        ("minibatches", 65),
        ("temperature", 0.0),
        ("clip", 0.0),
        ("clip", 1.0),
        ("value_clip", -0.2),
        ("value_coef", -0.1),
        ("entropy_coef", -0.1),
        ("gamma", 0.0),
        ("gamma", 1.5),
        ("lam", -0.1),
        ("lam", 1.1),
        ("kl_coef", -0.1),
        ("kl_target", 0.0),
        ("kl_horizon", 0),
        ("kl_horizon", 12),
        ("missing_eos_penalty", -1.0),
        ("max_grad_norm", 0.0),
        ("max_update_kl", 0.0),
        ("ptx_coef", -1.0),
        ("ptx_rows", 0),
        *(
            (name, float("nan"))
            for name in ("temperature", "clip", "value_clip", "value_coef", "entropy_coef", "gamma")
        ),
        *((name, float("nan")) for name in ("lam", "kl_coef", "kl_target", "missing_eos_penalty", "max_grad_norm")),
    ],
)
def test_a_wrong_setting_is_refused_by_name(name: str, value: float) -> None:
    steered = {"kl_target": 6.0} if name == "kl_horizon" else {}
    with pytest.raises(ConfigError, match=rf"^ppo\.{name} ") as error:
        PPOConfig(**{**steered, name: value})
    assert str(value) in str(error.value)


def test_a_steered_kl_needs_a_coefficient_to_start_from() -> None:
    with pytest.raises(ConfigError, match=r"^ppo\.kl_coef must be above 0"):
        PPOConfig(kl_coef=0.0, kl_target=6.0)


def test_no_prompts_are_refused(policy_engine: Build, variety: Reward) -> None:
    with pytest.raises(ConfigError, match=r"^ppo: no prompts to sample from; give more"):
        PPO(policy_engine(), [], variety, SMALL)


def test_updates_end_where_the_policy_has_moved_too_far(
    policy_engine: Build, prompts: list[Prompt], variety: Reward
) -> None:
    config = replace(SMALL, epochs=6, clip=0.9)
    engine = policy_engine()
    free = PPO(engine, prompts, variety, config).step()
    seen = [metrics["approx_kl"] for _, metrics in engine.seen]
    assert len(seen) == 6
    assert "updates" not in free
    limit = (seen[2] + seen[3]) / 2  # what the fourth update would go on from lies beyond it
    assert max(seen[:3]) < limit < seen[3]
    stopped = policy_engine()
    assert PPO(stopped, prompts, variety, replace(config, max_update_kl=limit)).step()["updates"] == 3
    assert [metrics["approx_kl"] for _, metrics in stopped.seen] == seen[:4]
    assert stopped.updates == engine.updates == 6  # so that the learning rate ends where it is to end
    assert not any(weight.grad is not None for weight in stopped.roles.weights().values())


def test_pretraining_rows_are_imitated_beside(policy_engine: Build, prompts: list[Prompt]) -> None:
    """Without advantages the gradient is `ptx_coef` times that of the rows' mean negative log-likelihood."""
    rows = [([3, 4], [5, 6, 7]), ([8], [9, 3])]
    config = replace(SMALL, kl_coef=0.0, lam=1.0, value_coef=0.0, missing_eos_penalty=0.0, ptx_coef=2.0, ptx_rows=2)
    engine = policy_engine()
    model = policy_engine().roles.policy.model
    picked = []
    for prompt, completion in rows:
        logprobs = model(torch.tensor([prompt + completion])).logits[0].log_softmax(-1)
        picked += [logprobs[len(prompt) - 1 + t, token] for t, token in enumerate(completion)]
    nll = -torch.stack(picked).mean()
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(2.0 * nll, list(model.parameters()))])
    metrics = PPO(engine, prompts, constant, config, rows).step()
    assert metrics["ptx_loss"] == pytest.approx(float(nll.detach()), abs=1e-5)
    assert metrics["grad_norm"] == pytest.approx(float(expected.norm()), rel=1e-4)


@pytest.mark.parametrize(("coef", "rows"), [(1.0, ()), (0.0, [([3], [4])])])
def test_pretraining_rows_and_their_weight_go_together(
    policy_engine: Build, prompts: list[Prompt], variety: Reward, coef: float, rows: Any
) -> None:
    with pytest.raises(ConfigError, match=r"ppo\.ptx_coef and pretraining go together"):
        PPO(policy_engine(), prompts, variety, replace(SMALL, ptx_coef=coef), rows)
