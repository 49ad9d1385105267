"""REINFORCE, RLOO, GRPO and A2C on the tiny model: their gradients by hand, and where they are one algorithm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tuneful.algorithms import a2c, grpo, ppo, raft, reinforce
from tuneful.algorithms.a2c import A2C, A2CConfig
from tuneful.algorithms.dqn import DQNConfig
from tuneful.algorithms.grpo import GRPO, GRPOConfig
from tuneful.algorithms.ilql import ILQLConfig
from tuneful.algorithms.on_policy import Collector, OnPolicyConfig, shaped_returns, token_weights
from tuneful.algorithms.ppo import PPOConfig
from tuneful.algorithms.raft import RAFT, RAFTConfig, chosen
from tuneful.algorithms.reinforce import Reinforce, ReinforceConfig, RLOOConfig
from tuneful.algorithms.stopping import HackingAlarm
from tuneful.engines.optimization import Optimization
from tuneful.errors import ConfigError
from tuneful.functional.advantages import leave_one_out
from tuneful.generation.rollout import Rollout
from tuneful.models.forward import Outputs
from tuneful.records import Completion, Prompt
from tuneful.rewards.reward import Reward

Build = Callable[..., Any]
SMALL: dict[str, Any] = {
    "num_steps": 4,
    "prompts_per_step": 4,
    "samples_per_prompt": 3,
    "max_new_tokens": 6,
    "kl_coef": 0.1,
    "max_grad_norm": 1e6,
}


@pytest.fixture
def collected(policy_engine: Build, prompts: list[Prompt], variety: Reward) -> Callable[..., tuple[Any, Rollout]]:
    """An engine whose policy has left its reference, and what it answered."""

    def collect(config: OnPolicyConfig) -> tuple[Any, Rollout]:
        engine = policy_engine()
        torch.manual_seed(7)
        with torch.no_grad():
            for weight in engine.roles.policy.weights.values():
                weight.add_(0.02 * torch.randn_like(weight))
        return engine, Collector(engine, prompts, variety, config, with_values=True).next_rollout()

    return collect


def gradient(engine: Any, update: Callable[[], Any]) -> Tensor:
    """Of the policy's weights, in the one optimizer step that `update` takes."""
    seen: list[Tensor] = []

    def step(max_norm: float) -> float:
        weights = engine.roles.policy.weights.values()
        seen.append(torch.cat([torch.zeros(w.numel()) if w.grad is None else w.grad.flatten() for w in weights]))
        for weight in engine.parameters():
            weight.grad = None
        return 0.0

    engine.step = step
    update()
    (only,) = seen
    return only


def by_transformers(engine: Any, rollout: Rollout, weights: Tensor) -> Tensor:
    """Gradient of - sum of weights [N, T] * log policy(token), each row alone through transformers' own model."""
    model = engine.roles.policy.model
    total = torch.zeros(())
    for row, completion in enumerate(rollout.completions):
        prompt = rollout.prompts[row]
        logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        logprobs = logits.log_softmax(-1).gather(-1, torch.tensor(completion)[:, None]).squeeze(-1)
        total = total - (weights[row, : len(completion)] * logprobs).sum()
    found = torch.autograd.grad(total, list(engine.roles.policy.weights.values()), allow_unused=True)
    pairs = zip(found, engine.roles.policy.weights.values(), strict=True)
    return torch.cat([torch.zeros(w.numel()) if g is None else g.flatten() for g, w in pairs])


def log_ratio(rollout: Rollout) -> Tensor:
    assert rollout.reference_logprobs is not None
    return (rollout.logprobs - rollout.reference_logprobs) * rollout.mask


Learn = tuple[type[OnPolicyConfig], Any]
LEARNERS: dict[str, Learn] = {
    "reinforce": (ReinforceConfig, Reinforce),
    "rloo": (RLOOConfig, Reinforce),
    "grpo": (GRPOConfig, GRPO),
    "a2c": (A2CConfig, A2C),
    "raft": (RAFTConfig, RAFT),
}
every = pytest.mark.parametrize("name", LEARNERS)


def test_reinforce_by_hand(collected: Any) -> None:
    """- mean over completions of (score - .1 KL - 1/4) log policy(completion)."""
    config = ReinforceConfig(**SMALL)
    engine, rollout = collected(config)
    assert not rollout.mask.all()
    returns = shaped_returns(rollout, kl_coef=0.1)
    assert_close(returns, rollout.scores - 0.1 * log_ratio(rollout).sum(-1))
    found = gradient(engine, lambda: reinforce.update(engine, rollout, returns - 0.25, config, seed=0))
    expected = by_transformers(engine, rollout, (returns - 0.25)[:, None] / len(rollout) * rollout.mask)
    assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_a2c_by_hand(collected: Any) -> None:
    """With lambda 1 the advantage of a token is all reward from it on, less the value."""
    config = A2CConfig(**SMALL, value_coef=0.0)
    engine, rollout = collected(config)
    from_here = (-0.1 * log_ratio(rollout)).flip(-1).cumsum(-1).flip(-1) + rollout.scores[:, None]
    advantages = (from_here - rollout.values) * rollout.mask
    found = gradient(engine, lambda: a2c.update(engine, rollout, config, kl_coef=0.1))
    assert_close(found, by_transformers(engine, rollout, advantages / rollout.mask.sum()), atol=1e-5, rtol=1e-4)


def test_the_value_loss_of_a2c_by_hand() -> None:
    """Tokens worth 1 and 2 that returned 3 and 1, a third not counted: (4 + 1) / 2, no half taken, times 0.5."""
    mask = torch.tensor([[True, True, False]])
    values = torch.tensor([[1.0, 2.0, 9.0]], requires_grad=True)
    returns, none = torch.tensor([[3.0, 1.0, 0.0]]), torch.zeros(1, 3)
    outputs = Outputs(mask, logprobs=none, entropy=none, values=values)
    config = A2CConfig(value_coef=0.5)
    loss, metrics = a2c.a2c_loss(outputs, [0], advantages=none, returns=returns, mask=mask, config=config)
    assert metrics["value_loss"] == 2.5
    assert float(loss.detach()) == 1.25
    loss.backward()
    assert_close(values.grad, torch.tensor([[-1.0, 0.5, 0.0]]))  # value_coef * 2 (V - return) / 2 tokens


@pytest.mark.parametrize("estimator", ["k2", "k3"])
@pytest.mark.parametrize("averaging", ["tokens", "completions", "constant"])
def test_grpo_by_hand(collected: Any, averaging: Any, estimator: Any) -> None:
    """Advantages of groups of 3, and the gradient of the KL: of k3, r - 1 - log r at r = reference / policy, it is
    1 - r times that of log policy, of k2, (log r)^2 / 2, -log r times it."""
    config = GRPOConfig(**SMALL, averaging=averaging, kl_estimator=estimator)
    engine, rollout = collected(config)
    groups = rollout.scores.view(-1, 3)
    advantages = ((groups - groups.mean(-1, keepdim=True)) / (groups.std(-1, keepdim=True) + 1e-4)).flatten()
    slope = log_ratio(rollout) if estimator == "k2" else 1 - torch.exp(-log_ratio(rollout))
    of_tokens = advantages[:, None] - 0.1 * slope
    lengths = rollout.mask.sum(-1, keepdim=True)
    share = {"tokens": 1 / lengths.sum(), "completions": 1 / (12 * lengths), "constant": torch.tensor(1 / 72)}[
        averaging
    ]
    found = gradient(engine, lambda: grpo.update(engine, rollout, config, kl_coef=0.1, seed=0))
    assert_close(found, by_transformers(engine, rollout, of_tokens * share * rollout.mask), atol=1e-5, rtol=1e-4)


def test_rloo_is_dr_grpo_times_its_factor(collected: Any) -> None:
    """Without KL, and by one constant denominator: RLOO's is the completions, Dr. GRPO's them times the longest."""
    config = RLOOConfig(**SMALL)
    engine, rollout = collected(config)
    others = leave_one_out(rollout.scores, 3)
    of_rloo = gradient(engine, lambda: reinforce.update(engine, rollout, rollout.scores - others, config, seed=0))
    dr = GRPOConfig(**SMALL, spread="none", averaging="constant")
    of_dr = gradient(engine, lambda: grpo.update(engine, rollout, dr, kl_coef=0.0, seed=0))
    assert of_rloo.norm() > 1e-3
    assert_close(of_rloo, of_dr * 3 / 2 * 6, atol=1e-6, rtol=1e-4)


def test_ppo_at_its_first_update_is_a2c(collected: Any) -> None:
    """One epoch, one minibatch, no whitening: the policy's gradient, whatever the value losses are."""
    settings = SMALL | {"samples_per_prompt": 2}
    actor_critic = A2CConfig(**settings, lam=0.9, value_coef=0.0)
    proximal = PPOConfig(**settings, lam=0.9, epochs=1, whiten_advantages=False, value_coef=0.0)
    engine, rollout = collected(actor_critic)
    of_a2c = gradient(engine, lambda: a2c.update(engine, rollout, actor_critic, kl_coef=0.1))
    of_ppo = gradient(engine, lambda: ppo.update(engine, rollout, proximal, kl_coef=0.1, seed=0))
    assert of_a2c.norm() > 1e-3
    assert_close(of_ppo, of_a2c, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("baseline", "expected"),
    [("none", [0.0, 0.0, 0.0]), ("running", [0.0, 1.0, 0.9 * 1 + 0.1 * 2])],
)
def test_the_baseline_by_hand(
    policy_engine: Build, prompts: list[Prompt], baseline: Any, expected: list[float]
) -> None:
    """Rewards of 1, 2 and 4 in turn: the running mean begins with the first step's and keeps nine tenths of itself."""
    rewards = iter([1.0, 2.0, 4.0])

    def rising(_: Sequence[Prompt], completions: Sequence[Completion]) -> Tensor:
        return torch.full((len(completions),), next(rewards))

    config = ReinforceConfig(**SMALL | {"kl_coef": 0.0}, missing_eos_penalty=0.0, baseline=baseline)
    learner = Reinforce(policy_engine(), prompts, rising, config)
    assert [learner.step()["baseline"] for _ in range(3)] == pytest.approx(expected)


def test_a_completion_is_one_action(policy_engine: Build, prompts: list[Prompt], variety: Reward) -> None:
    """The ratio that is clipped is the whole completion's, so a second epoch clips whole completions."""
    engine = policy_engine(optimization=Optimization(learning_rate=3e-2, schedule="constant"))
    config = ReinforceConfig(**SMALL, epochs=3, clip=0.05)
    Reinforce(engine, prompts, variety, config).step()
    shares = [metrics["clip_fraction"] * 12 for _, metrics in engine.seen]
    assert shares[0] == 0
    assert shares[-1] > 0
    assert all(abs(share - round(share)) < 1e-5 for share in shares)


def test_groups_that_are_equal_are_counted(policy_engine: Build, prompts: list[Prompt]) -> None:
    def by_prompt(asked: Sequence[Prompt], completions: Sequence[Completion]) -> Tensor:
        """Two prompts whose samples all score alike, two whose samples do not."""
        return torch.tensor([float(k) if p in prompts[:2] else 1.0 for k, p in enumerate(asked)])

    config = GRPOConfig(**SMALL, missing_eos_penalty=0.0)
    assert GRPO(policy_engine(), prompts, by_prompt, config).step()["equal_groups"] == 0.5


def test_the_best_of_each_group_are_kept() -> None:
    returns = torch.tensor([0.0, 3.0, 1.0, 2.0, -1.0, -3.0, -2.0, -1.0])
    settings: dict[str, Any] = {"samples_per_prompt": 4, "prompts_per_step": 2}
    assert chosen(returns, RAFTConfig(**settings), seed=0) == [1, 4]  # of equals the first
    assert chosen(returns, RAFTConfig(**settings, kept=2), seed=0) == [1, 3, 4, 7]
    control = RAFTConfig(**settings, kept=2, choice="random")
    drawn = [chosen(returns, control, seed=seed) for seed in range(200)]
    assert all(sum(row < 4 for row in rows) == 2 and len(set(rows)) == 4 for rows in drawn)
    assert drawn[0] == chosen(returns, control, seed=0)
    for row in range(8):  # each is kept in half of all draws, give or take four standard errors
        assert sum(row in rows for rows in drawn) == pytest.approx(100, abs=4 * 200**0.5 / 2)


def test_raft_by_hand(collected: Any) -> None:
    """The gradient of the mean negative log-likelihood of the tokens of the best."""
    config = RAFTConfig(**SMALL)
    engine, rollout = collected(config)
    best = [3 * k + int(rollout.scores[3 * k : 3 * k + 3].argmax()) for k in range(4)]
    rows = chosen(rollout.scores, config, seed=0)
    assert rows == best
    kept = rollout.rows(rows)
    found = gradient(engine, lambda: raft.update(engine, kept, config, seed=0))
    assert_close(found, by_transformers(engine, kept, kept.mask / kept.mask.sum()), atol=1e-5, rtol=1e-4)


def test_weights_of_tokens_by_hand() -> None:
    """Rows of 3 and 1 tokens. By completions a token of the first counts a sixth, the second's a half; as a constant
    1 / (2 * 5) each. As weights in a mean over 4 tokens: times 4."""
    mask = torch.tensor([[True, True, True], [True, False, False]])
    assert_close(token_weights(mask, "tokens", 5), mask.float())
    assert_close(token_weights(mask, "completions", 5), torch.tensor([[2 / 3] * 3, [2.0, 0, 0]]))
    assert_close(token_weights(mask, "constant", 5), torch.tensor([[0.4] * 3, [0.4, 0, 0]]))


@every
def test_micro_batches_do_not_change_the_update(
    name: str, policy_engine: Build, prompts: list[Prompt], variety: Reward
) -> None:
    kind, learner = LEARNERS[name]
    whole, cut = policy_engine(), policy_engine(tokens_per_microbatch=20)
    for engine in (whole, cut):  # Adam's first step is the gradient's sign; a large epsilon keeps its size
        engine.optimization = Optimization(learning_rate=1.0, schedule="constant", adam_eps=1.0)
    first, second = (learner(engine, prompts, variety, kind(**SMALL)).step() for engine in (whole, cut))
    assert first == pytest.approx(second, abs=1e-5)
    for one, other in zip(whole.parameters(), cut.parameters(), strict=True):
        assert_close(one, other, atol=1e-5, rtol=1e-4)


@every
def test_a_learner_goes_on_from_its_state(
    name: str, policy_engine: Build, prompts: list[Prompt], variety: Reward, tmp_path: Any
) -> None:
    kind, learner = LEARNERS[name]
    config = kind(**SMALL, kl_target=0.5, kl_horizon=1000)
    one, other = (learner(policy_engine(), prompts, variety, config) for _ in range(2))
    for _ in range(2):
        one.step()
    one.engine.save(tmp_path)
    state = one.state()
    expected = one.step()
    other.engine.load(tmp_path)
    other.restore(state)
    assert other.step() == expected


@every
def test_the_reward_rises(name: str, policy_engine: Build, prompts: list[Prompt]) -> None:
    def low_ids(_: Sequence[Prompt], completions: Sequence[Completion]) -> Tensor:
        """Share of tokens of the lower half of the vocabulary."""
        return torch.tensor([sum(t < 41 for t in c.tokens or ()) / len(c.tokens or "-") for c in completions])

    kind, learner = LEARNERS[name]
    config = kind(
        **SMALL
        | {"samples_per_prompt": 8, "kl_coef": 0.0, "num_steps": 30, "max_grad_norm": 1.0, "missing_eos_penalty": 0.0}
    )
    engine = policy_engine(optimization=Optimization(learning_rate=1e-2), total_steps=30)
    one = learner(engine, prompts, low_ids, config)
    seen = [one.step()["reward"] for _ in range(30)]
    assert sum(seen[-5:]) / 5 > sum(seen[:5]) / 5 + 0.15


FELT: dict[str, Any] = {
    "num_steps": 3,
    "prompts_per_step": 3,
    "samples_per_prompt": 4,
    "max_new_tokens": 6,
    "kl_coef": 0.1,
    "kl_target": 1.0,
    "kl_horizon": 100,
    "max_grad_norm": 0.05,
    "optimization": Optimization(learning_rate=1e-2),
}
SHARED: dict[str, Any] = {
    "num_steps": 4,
    "prompts_per_step": 4,
    "samples_per_prompt": 2,
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
}
MORE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "reinforce": (
        {"epochs": 2, "clip": 0.05},
        {"baseline": "none", "baseline_decay": 0.1, "epochs": 1, "minibatches": 2, "clip": 0.5, "entropy_coef": 0.5},
    ),
    "rloo": ({"epochs": 2, "clip": 0.05}, {"epochs": 1, "minibatches": 2, "clip": 0.5, "entropy_coef": 0.5}),
    "grpo": (
        {"epochs": 2, "clip": 0.05},
        {
            "spread": "none",
            "averaging": "completions",
            "epochs": 1,
            "minibatches": 2,
            "clip": 0.5,
            "kl_estimator": "k3",
        },
    ),
    "a2c": ({}, {"value_coef": 0.5, "entropy_coef": 0.5, "gamma": 0.9, "lam": 0.5}),
    "raft": (
        {"kl_coef": 12.0, "kl_horizon": 4},
        {"kl_coef": 1000.0, "kept": 2, "choice": "random", "epochs": 2, "minibatches": 2},
    ),
}


@every
def test_every_setting_changes_the_outcome(
    name: str, policy_engine: Build, prompts: list[Prompt], variety: Reward
) -> None:
    kind, learner = LEARNERS[name]
    more, alternatives = MORE[name]
    felt, alternatives = kind(**FELT | more), SHARED | alternatives

    def outcome(config: Any) -> str:
        engine = policy_engine(optimization=config.optimization, total_steps=config.updates)
        one = learner(engine, prompts, variety, config)
        for _ in range(3):
            one.step()
        return str(engine.weight_hash())

    assert alternatives.keys() == {f.name for f in fields(kind)}
    usual = outcome(felt)
    assert [n for n, other in alternatives.items() if outcome(replace(felt, **{n: other})) == usual] == []


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        *((kind, "num_steps", 0) for kind in (ReinforceConfig, RLOOConfig, GRPOConfig, A2CConfig)),
        *((kind, "temperature", 0.0) for kind in (ReinforceConfig, RLOOConfig, GRPOConfig, A2CConfig)),
        *((kind, "clip", 1.0) for kind in (ReinforceConfig, RLOOConfig, GRPOConfig)),
        *((kind, "minibatches", 10_000) for kind in (ReinforceConfig, RLOOConfig, GRPOConfig)),
        *((kind, "samples_per_prompt", 1) for kind in (RLOOConfig, GRPOConfig)),
        (ReinforceConfig, "baseline_decay", 1.0),
        (ReinforceConfig, "entropy_coef", -0.1),
        (A2CConfig, "lam", 1.1),
        (A2CConfig, "gamma", 0.0),
        (A2CConfig, "value_coef", -1.0),
        (RAFTConfig, "kept", 0),
        (RAFTConfig, "kept", 8),
        (RAFTConfig, "samples_per_prompt", 1),
        (RAFTConfig, "minibatches", 65),
    ],
)
def test_a_wrong_setting_is_refused_by_name(kind: Any, name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"{kind.table}{name}") as error:
        kind(**{name: value})
    assert str(value) in str(error.value)


@pytest.mark.parametrize(
    ("kind", "name", "value", "mend"),
    [
        (GRPOConfig, "minibatches", 10_000, "lower minibatches or raise prompts_per_step"),
        (RAFTConfig, "minibatches", 65, "lower minibatches or raise prompts_per_step"),
        (RAFTConfig, "kept", 8, "1 is usual"),
        (DQNConfig, "epsilon", 2.0, "0 explores nothing"),
        (DQNConfig, "polyak", 0.0, "0.01 is usual"),
        (ILQLConfig, "gamma", 1.5, "0.99 is usual"),
        (HackingAlarm, "kept_gain", 2.0, "0.9 is usual"),
    ],
)
def test_what_is_refused_can_be_mended(kind: Any, name: str, value: float, mend: str) -> None:
    with pytest.raises(ConfigError, match=rf"\.{name} .*{value}.*; {mend}$"):
        kind(**{name: value})


def test_a_baseline_of_others_needs_others() -> None:
    with pytest.raises(ConfigError, match=r"reinforce\.samples_per_prompt must be at least 2"):
        ReinforceConfig(baseline="leave-one-out", samples_per_prompt=1)
