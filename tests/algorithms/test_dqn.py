"""DQN: its loss and gradient by hand and by transformers, and what each setting does, on the tiny model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn, tensor
from torch.testing import assert_close

from tests.algorithms.conftest import WatchedEngine
from tests.end_to_end.ladder import PROMPT, WIDTH, StringProblem, engine_for
from tuneful.algorithms import dqn
from tuneful.algorithms.dqn import DQN, DQNConfig
from tuneful.engines.optimization import Optimization
from tuneful.errors import ConfigError
from tuneful.generation.rollout import Scored
from tuneful.models.forward import Outputs
from tuneful.models.q_heads import QHeads
from tuneful.records import Prompt
from tuneful.rewards.reward import Reward

Build = Callable[..., WatchedEngine]
SETTINGS: dict[str, Any] = {
    "num_steps": 4,
    "prompts_per_step": 3,
    "samples_per_prompt": 2,
    "max_new_tokens": 6,
    "kl_coef": 0.5,
    "updates_per_step": 2,
    "completions_per_update": 5,
    "polyak": 0.5,
    "optimization": Optimization(learning_rate=1e-2),
}
SCORED = [
    Scored([1, 4, 30, 5], [31, 32, 33, 34, 2], 3.0),
    Scored([1, 4, 40, 41, 5], [50, 2], -1.0),
    Scored([1, 4, 30, 5], [60, 61, 62], 0.5),
]
"""Of the tiny model's tokens."""

A, B, EOS = 0, 1, 2
WORLD = StringProblem("ab", 2, beta=1.0, reward=lambda _: 0.0)
"""Its reference says a or b with a half each, twice, and then the end token."""
SAID = Scored([4], [A, B, EOS], 3.0)
FIRST, SECOND = [1.0, 2.0, 0.5, 0.0, 0.0], [1.5, 1.8, 0.4, 0.0, 0.0]
FIRST_COPY, SECOND_COPY = [2.0, 1.0, 4.0, 0.0, 0.0], [3.0, 0.5, 5.0, 0.0, 0.0]


def spoken(head: nn.Module, values: list[float]) -> None:
    """Make a head say these values, whatever the state."""
    last: Any = head[2]  # type: ignore[index]
    nn.init.zeros_(last.weight)
    last.bias.data.copy_(tensor(values))


def loss_by_hand(
    beta: float | None, *, reward_steps: int | None = 1, num_tokens: int = 3
) -> tuple[Tensor, dict[str, float], QHeads]:
    """What `q_loss` makes of SAID with the heads above and a discount of a half."""
    heads = QHeads(WIDTH + 1, 5)
    for head, values in zip([*heads.q, *heads.target], (FIRST, SECOND, FIRST_COPY, SECOND_COPY), strict=True):
        spoken(head, values)
    leash: dict[str, Any] = {"leash": "none"} if beta is None else {"kl_coef": beta}
    reference = engine_for(WORLD, 0, Optimization(), 1).roles.reference
    assert reference is not None
    loss, metrics = dqn.q_loss(
        Outputs(torch.ones(1, 3, dtype=torch.bool), states=torch.randn(3, WIDTH + 1)),
        [1],
        heads=heads,
        reference=reference,
        scored=[Scored([4], [B], 9.0), SAID],
        config=DQNConfig(top_k=2, gamma=0.5, reward_steps=reward_steps, **leash),
        num_tokens=num_tokens,
        beta=beta,
    )
    return loss, metrics, heads


def test_the_soft_loss_by_hand() -> None:
    """Of the copies the smaller values are a 2, b 1/2, end 4; V is log((e^2 + e^.5) / 2) = 1.508266 before both letters
    and 4 before the end, which nothing else can follow. Targets are half of the next V, and the score at the end."""
    targets = [1.508266 / 2, 4 / 2, 3.0]
    loss, metrics, _ = loss_by_hand(1.0)
    first = (1.0 - targets[0]) ** 2 / 2 + 0.0 + (2.5 - 0.5)  # beyond 1 the Huber loss is |u| - 1/2
    second = (1.5 - targets[0]) ** 2 / 2 + 0.2**2 / 2 + (2.6 - 0.5)
    assert loss.item() == pytest.approx((first + second) / 3, abs=1e-6)
    assert metrics == pytest.approx(
        {
            "q_loss": (first + second) / 3,
            "q": (1.0 + 2.0 + 0.5) / 3,
            "q_target": sum(targets) / 3,
            "q_disagreement": (0.5 + 0.2 + 0.1) / 3,
            "state_value": (1.508266 + 1.508266 + 4) / 3,
        },
        abs=1e-6,
    )


def test_its_gradient_by_hand() -> None:
    """Of the Huber loss q - y, at most 1 to either side, for the tokens that were drawn; the copies have none."""
    loss, _, heads = loss_by_hand(1.0, num_tokens=6)  # the other three are in another micro-batch
    loss.backward()  # type: ignore[no-untyped-call]
    y = 1.508266 / 2
    for head, expected in zip(heads.q, ([1.0 - y, 0.0, -1.0, 0, 0], [1.5 - y, -0.2, -1.0, 0, 0]), strict=True):
        last: Any = head[2]  # type: ignore[index]
        assert_close(last.bias.grad, tensor(expected) / 6)
    assert all(weight.grad is None for weight in [*heads.target.parameters(), *heads.v.parameters()])


def test_without_a_leash_the_heads_choose_and_the_copies_say_what_it_is_worth() -> None:
    """Of the heads' smaller values, a 1 and b 1.8, b is the best; of the copies its own is 1/2, though a's is 2. In the
    end there is one token alone, though the heads find the letters better."""
    targets = [0.5 / 2, 4 / 2, 3.0]
    first = 0.75**2 / 2 + 0.0 + (2.5 - 0.5)
    second = (1.25 - 0.5) + 0.2**2 / 2 + (2.6 - 0.5)
    loss, metrics, _ = loss_by_hand(None)
    assert metrics["q_target"] == pytest.approx(sum(targets) / 3, abs=1e-6)
    assert loss.item() == pytest.approx((first + second) / 3, abs=1e-6)


def test_rewards_to_the_end_need_no_value() -> None:
    """3 at the end is worth 3/4 two tokens before it and 3/2 one before; two rewards ask V, 4, two tokens later."""
    whole = loss_by_hand(None, reward_steps=None)[1]
    assert whole["q_target"] == pytest.approx((0.75 + 1.5 + 3) / 3)
    assert loss_by_hand(None, reward_steps=2)[1]["q_target"] == pytest.approx((4 / 4 + 1.5 + 3) / 3)


def test_later_rewards_pay_for_their_leash() -> None:
    """What b costs there is Q - V = 1/2 - 1.508266, below 0: it is less likely than in the reference. What the end
    costs is 4 - 4. So the first target has half of 1.008266 more than without a leash."""
    whole = loss_by_hand(1.0, reward_steps=None)[1]
    assert whole["q_target"] == pytest.approx((1.008266 / 2 + 0.75 + 1.5 + 3) / 3, abs=1e-6)
    two = loss_by_hand(1.0, reward_steps=2)[1]
    assert two["q_target"] == pytest.approx((1.008266 / 2 + 4 / 4 + 1.5 + 3) / 3, abs=1e-6)


def test_the_gradient_reaches_the_whole_policy(heads_engine: Build) -> None:
    """Through transformers' own states and all 82 values of each head, row by row; rewards to the end as targets."""
    engine = heads_engine()
    heads: Any = engine.roles.heads
    total = torch.zeros(())
    for prompt, completion, score, *_ in SCORED:
        states = engine.roles.policy.model.model(torch.tensor([prompt + completion])).last_hidden_state  # type: ignore[union-attr]
        y = score * 0.9 ** torch.arange(len(completion)).flip(0)
        for head in heads.q:
            u = head(states[0, len(prompt) - 1 : -1]).gather(-1, torch.tensor(completion)[:, None])[:, 0] - y
            total = total + torch.where(u.abs() < 1, u.square() / 2, u.abs() - 0.5).sum()
    expected = torch.autograd.grad(total / 10, engine.parameters(), allow_unused=True)
    seen: list[Tensor | None] = []
    engine.step = lambda _: seen.extend(weight.grad for weight in engine.parameters()) or 0.0  # type: ignore[assignment, func-returns-value]
    config = DQNConfig(leash="none", gamma=0.9, reward_steps=None)
    metrics = dqn.update(engine, heads, SCORED, config, beta=None)
    assert metrics["q_loss"] == pytest.approx(total.item() / 10, abs=1e-5)
    assert sum(grad is not None and bool(grad.any()) for grad in expected) > 20
    for found, wanted in zip(seen, expected, strict=True):
        assert (found is None or not found.any()) if wanted is None else found is not None
        if found is not None and wanted is not None:
            assert_close(found, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("beta", [0.5, None])
def test_micro_batches_do_not_change_the_update(heads_engine: Build, beta: float | None) -> None:
    whole, cut = heads_engine(), heads_engine(tokens_per_microbatch=8)
    config = DQNConfig(**SETTINGS)
    metrics = []
    for engine in (whole, cut):  # Adam's first step is the gradient's sign; a large epsilon keeps its size
        engine.optimization = Optimization(learning_rate=1.0, schedule="constant", adam_eps=1.0)
        heads: Any = engine.roles.heads
        metrics.append(dqn.update(engine, heads, SCORED, config, beta=beta))
    assert metrics[0] == pytest.approx(metrics[1], abs=1e-5)
    before = heads_engine().parameters()
    assert any(not torch.equal(one, other) for one, other in zip(whole.parameters(), before, strict=True))
    for one, other in zip(whole.parameters(), cut.parameters(), strict=True):
        assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_the_newest_completions_are_kept(heads_engine: Build, prompts: list[Prompt], variety: Reward) -> None:
    learner = DQN(heads_engine(), prompts, variety, DQNConfig(**SETTINGS, replay=8))
    rollouts = []
    for _ in range(2):
        rollouts.append(learner.draw())
        learner.learn(rollouts[-1])
    said = [completion for rollout in rollouts for completion in rollout.completions]
    assert [one.completion for one in learner.replay] == said[-8:]


def test_stored_completions_are_the_first_of_the_replay(
    heads_engine: Build, prompts: list[Prompt], variety: Reward
) -> None:
    learner = DQN(heads_engine(), prompts, variety, DQNConfig(**SETTINGS, replay=8), stored=SCORED)
    rollout = learner.draw()
    learner.learn(rollout)
    assert learner.replay[:2] == SCORED[1:]
    assert [one.completion for one in learner.replay[2:]] == rollout.completions


def test_offline_it_takes_the_same_steps_without_asking_anyone(heads_engine: Build, prompts: list[Prompt]) -> None:
    """A step on all of what is stored is `update` on it; no answer is drawn, and none scored."""

    def nobody(*_: object) -> Any:
        raise AssertionError("asked for a score")

    offline = {"offline": True, "prompts_per_step": 64, "samples_per_prompt": 1, "updates_per_step": 1}
    config = DQNConfig(**SETTINGS | offline)
    learned, by_hand = heads_engine(), heads_engine()
    for engine in (learned, by_hand):  # as above
        engine.optimization = Optimization(learning_rate=1.0, schedule="constant", adam_eps=1.0)
    heads: Any = by_hand.roles.heads
    expected = dqn.update(by_hand, heads, SCORED, config, beta=config.kl_coef)
    learner = DQN(learned, prompts, nobody, config, stored=SCORED)
    assert learner.step() == pytest.approx(expected | {"replay": 3.0}, abs=1e-5)
    for one, other in zip(learned.parameters(), by_hand.parameters(), strict=True):
        assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert (learner.collector.steps, learner.replay) == (1, SCORED)


def test_a_completion_of_weight_two_counts_as_two_of_it(heads_engine: Build) -> None:
    metrics = []
    for scored in ([SCORED[0]._replace(weight=2.0), SCORED[1]], [SCORED[0], SCORED[0], SCORED[1]]):
        engine = heads_engine()
        heads: Any = engine.roles.heads
        metrics.append(dqn.update(engine, heads, scored, DQNConfig(**SETTINGS), beta=0.5))
    assert metrics[0] == pytest.approx(metrics[1], abs=1e-5)


def test_it_goes_on_from_its_state(heads_engine: Build, prompts: list[Prompt], variety: Reward, tmp_path: Path) -> None:
    config = DQNConfig(**SETTINGS, kl_target=0.5, kl_horizon=1000)
    one, other = (DQN(heads_engine(), prompts, variety, config) for _ in range(2))
    one.step()
    one.engine.save(tmp_path)
    state, guide = one.state(), one.engine.guide
    expected = one.step()
    other.engine.load(tmp_path)
    other.restore(state)
    assert guide is not None and other.engine.guide is not None
    assert other.engine.guide.scale == guide.scale != 1 / config.kl_coef  # what is saved if it ends here
    assert other.step() == expected


def test_every_setting_changes_the_outcome(heads_engine: Build, prompts: list[Prompt], variety: Reward) -> None:
    """What explores beside the values is of `leash = "none"` alone, and how long a leash is of the other."""
    soft = DQNConfig(**SETTINGS | {"num_steps": 3, "max_grad_norm": 0.05}, kl_target=1.0, kl_horizon=100)
    plain = DQNConfig(**{name: value for name, value in SETTINGS.items() if name != "kl_coef"})
    hard = replace(plain, leash="none")
    alternatives: dict[str, Any] = {
        "num_steps": 4,
        "prompts_per_step": 4,
        "samples_per_prompt": 3,
        "max_new_tokens": 5,
        "max_prompt_tokens": 4,
        "temperature": 0.8,
        "kl_coef": 0.2,
        "kl_target": None,
        "kl_horizon": 50,
        "missing_eos_penalty": 3.0,
        "max_grad_norm": 0.01,
        "optimization": Optimization(learning_rate=5e-3),
        "seed": 1,
        "top_k": 5,
        "replay": 5,
        "updates_per_step": 1,
        "completions_per_update": 4,
        "reward_steps": 1,
        "gamma": 0.9,
        "polyak": 0.1,
    }
    exploration = {"epsilon": 0.5, "epsilon_end": 0.9, "epsilon_share": 1.0}

    def outcome(config: DQNConfig) -> str:
        learner = DQN(
            heads_engine(optimization=config.optimization, total_steps=config.updates), prompts, variety, config
        )
        for _ in range(3):
            learner.step()
        return str(learner.engine.weight_hash())

    assert alternatives.keys() | exploration.keys() | {"leash", "offline"} == {f.name for f in fields(DQNConfig)}
    idle = []
    for felt, others in ((soft, alternatives), (plain, {"leash": "none"}), (hard, exploration)):
        usual = outcome(felt)
        idle += [n for n, other in others.items() if outcome(replace(felt, **{n: other})) == usual]
    assert not idle


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("top_k", 0),
        ("replay", 0),
        ("updates_per_step", 0),
        ("completions_per_update", 0),
        ("reward_steps", 0),
        ("epsilon", 1.5),
        ("epsilon_end", -0.1),
        ("epsilon_share", 0.0),
        ("gamma", 1.1),
        ("polyak", 0.0),
        ("kl_coef", 0.0),
    ],
)
def test_a_wrong_setting_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"dqn\.{name} must") as error:
        DQNConfig(**{name: value})
    assert str(value) in str(error.value)


@pytest.mark.parametrize(
    "setting", [{"prompts_per_step": 8}, {"samples_per_prompt": 2}, {"kl_target": 2.0}, {"epsilon": 0.5}, {"replay": 9}]
)
def test_what_samples_is_refused_offline(setting: dict[str, Any]) -> None:
    leash: dict[str, Any] = {"leash": "none"} if "epsilon" in setting else {}
    (name,) = setting
    with pytest.raises(ConfigError, match=rf"dqn\.{name} is not for offline = true.*leave it out"):
        DQNConfig(offline=True, **leash, **setting)


@pytest.mark.parametrize("setting", [{"kl_coef": 0.5}, {"kl_coef": 0.5, "kl_target": 2.0}])
def test_without_a_leash_nothing_is_said_of_its_length(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r'dqn\.kl_coef is not for leash = "none".*leave it out'):
        DQNConfig(leash="none", **setting)


def test_offline_it_needs_something_stored(heads_engine: Build, prompts: list[Prompt], variety: Reward) -> None:
    with pytest.raises(ConfigError, match="dqn: no stored completions to learn from offline"):
        DQN(heads_engine(), prompts, variety, DQNConfig(offline=True))


def test_no_stored_completion_is_left_unread(heads_engine: Build, prompts: list[Prompt], variety: Reward) -> None:
    with pytest.raises(ConfigError, match=r"dqn\.replay keeps 2 completions, of 3 stored"):
        DQN(heads_engine(), prompts, variety, DQNConfig(**SETTINGS, replay=2), stored=SCORED[:3])


def test_it_needs_heads(policy_engine: Build, variety: Reward) -> None:
    with pytest.raises(ConfigError, match="dqn needs the LocalEngine and roles with QHeads"):
        DQN(policy_engine(), [PROMPT], variety, DQNConfig())
