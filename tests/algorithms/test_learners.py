"""What all learners on given rows have in common: each row once an epoch, going on after a restart, settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import pytest

from tuneful.algorithms.dpo import DPO, DPOConfig
from tuneful.algorithms.kto import KTO, KTOConfig, unpair
from tuneful.algorithms.orpo import ORPO, ORPOConfig
from tuneful.algorithms.reward_model import RewardModel, RewardModelConfig, group_pairs
from tuneful.algorithms.sft import SFT, SFTConfig
from tuneful.algorithms.simpo import SimPO, SimPOConfig
from tuneful.engines.optimization import Optimization
from tuneful.errors import ConfigError
from tuneful.records import Comparison, Demonstration

Build = Callable[..., Any]
OPTIMIZATION = Optimization(learning_rate=1e-2)
NAN = float("nan")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A learner, its settings, another value for each of them, and values that are refused."""

    make: Callable[[Any, list[Comparison], Any], Any]
    engine: str
    config: Any
    num_rows: int
    """What six comparisons of four prompts are to it: as many demonstrations, prompts, pairs or answers."""
    steps_per_epoch: int
    completions_per_epoch: int
    alternatives: dict[str, Any]
    wrong: list[tuple[str, float]]


def sft(engine: Any, comparisons: list[Comparison], config: SFTConfig) -> SFT:
    return SFT(engine, [Demonstration(c.prompt, c.chosen) for c in comparisons], config, engine.tokenizer)


def reward(engine: Any, comparisons: list[Comparison], config: RewardModelConfig) -> RewardModel:
    groups = group_pairs(comparisons, engine.roles.reward, engine.tokenizer, config.max_tokens)
    return RewardModel(engine, groups, config)


def on_pairs(learner: Any) -> Callable[[Any, list[Comparison], Any], Any]:
    return lambda engine, comparisons, config: learner(engine, comparisons, config, engine.tokenizer)


def kto(engine: Any, comparisons: list[Comparison], config: KTOConfig) -> KTO:
    return KTO(engine, unpair(comparisons), config, engine.tokenizer)


OTHERS = {"epochs": 2, "max_tokens": 9, "max_grad_norm": 0.1, "optimization": Optimization(learning_rate=5e-3)}
WRONG = [("epochs", 0), ("max_tokens", 0), ("max_grad_norm", 0.0), ("max_grad_norm", NAN)]
KINDS = {
    "sft": Kind(
        make=sft,
        engine="policy_engine",
        config=SFTConfig(demonstrations_per_step=2, optimization=OPTIMIZATION),
        num_rows=6,
        steps_per_epoch=3,
        completions_per_epoch=6,
        alternatives=OTHERS | {"demonstrations_per_step": 3, "seed": 1},
        wrong=[*WRONG, ("demonstrations_per_step", 0)],
    ),
    "reward": Kind(
        make=reward,
        engine="reward_engine",
        config=RewardModelConfig(prompts_per_step=2, optimization=OPTIMIZATION),
        num_rows=4,
        steps_per_epoch=2,
        completions_per_epoch=12,
        alternatives=OTHERS | {"prompts_per_step": 3, "center_coef": 0.1, "seed": 1},
        wrong=[*WRONG, ("prompts_per_step", 0), ("center_coef", -0.1), ("center_coef", NAN)],
    ),
    "dpo": Kind(
        make=on_pairs(DPO),
        engine="policy_engine",
        config=DPOConfig(beta=0.5, pairs_per_step=3, optimization=OPTIMIZATION),
        num_rows=6,
        steps_per_epoch=2,
        completions_per_epoch=12,
        alternatives=OTHERS | {"loss": "ipo", "beta": 0.05, "label_noise": 0.1, "pairs_per_step": 2, "seed": 1},
        wrong=[
            *WRONG,
            ("pairs_per_step", 0),
            *(("beta", x) for x in (0.0, NAN)),
            *(("label_noise", x) for x in (-0.1, 0.5, NAN)),
        ],
    ),
    "orpo": Kind(
        make=on_pairs(ORPO),
        engine="policy_engine",
        config=ORPOConfig(pairs_per_step=3, optimization=OPTIMIZATION),
        num_rows=6,
        steps_per_epoch=2,
        completions_per_epoch=12,
        alternatives=OTHERS | {"odds_ratio_coef": 0.5, "pairs_per_step": 2, "seed": 1},
        wrong=[*WRONG, ("pairs_per_step", 0), *(("odds_ratio_coef", x) for x in (0.0, NAN))],
    ),
    "simpo": Kind(
        make=on_pairs(SimPO),
        engine="policy_engine",
        config=SimPOConfig(pairs_per_step=3, optimization=OPTIMIZATION),
        num_rows=6,
        steps_per_epoch=2,
        completions_per_epoch=12,
        alternatives=OTHERS | {"beta": 1.0, "target_margin": 0.0, "pairs_per_step": 2, "seed": 1},
        wrong=[
            *WRONG,
            ("pairs_per_step", 0),
            *(("beta", x) for x in (0.0, NAN)),
            *(("target_margin", x) for x in (-0.1, NAN)),
        ],
    ),
    "kto": Kind(
        make=kto,
        engine="policy_engine",
        config=KTOConfig(beta=0.5, answers_per_step=4, optimization=OPTIMIZATION),
        num_rows=12,
        steps_per_epoch=3,
        completions_per_epoch=12,
        alternatives=OTHERS
        | {"beta": 0.05, "desirable_weight": 2.0, "undesirable_weight": 2.0, "answers_per_step": 3, "seed": 1},
        wrong=[
            *WRONG,
            ("answers_per_step", 1),
            *((name, x) for name in ("beta", "desirable_weight", "undesirable_weight") for x in (0.0, NAN)),
        ],
    ),
}


@pytest.fixture(params=KINDS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def kind(name: str) -> Kind:
    return KINDS[name]


@pytest.fixture
def engine(kind: Kind, request: pytest.FixtureRequest) -> Build:
    build: Build = request.getfixturevalue(kind.engine)
    return build


def test_steps_are_counted_rounding_up(kind: Kind) -> None:
    assert kind.config.num_steps(kind.num_rows) == kind.steps_per_epoch
    assert kind.config.num_steps(kind.num_rows + 1) == kind.steps_per_epoch + 1
    assert replace(kind.config, epochs=3).num_steps(kind.num_rows) == 3 * kind.steps_per_epoch


def test_every_row_is_seen_once_an_epoch(kind: Kind, engine: Build, comparisons: list[Comparison]) -> None:
    learner = kind.make(engine(), comparisons, replace(kind.config, epochs=2))
    epochs = []
    for _ in range(2):
        for _ in range(kind.steps_per_epoch):
            learner.step()
        batches = [batch for batch, _ in learner.engine.seen[-kind.steps_per_epoch :]]
        epochs.append(sorted((ids, said) for b in batches for ids, said in zip(b.prompts, b.completions, strict=True)))
    assert epochs[0] == epochs[1]
    assert len({str(row) for row in epochs[0]}) == len(epochs[0]) == kind.completions_per_epoch


def test_a_restored_learner_goes_on_in_its_order(kind: Kind, engine: Build, comparisons: list[Comparison]) -> None:
    first, second = (kind.make(engine(), comparisons, kind.config) for _ in range(2))
    first.step()
    second.restore(first.state())
    for learner in (first, second):
        learner.step()
    assert first.engine.seen[-1][0] == second.engine.seen[-1][0]
    assert first.engine.seen[-1][0] != first.engine.seen[0][0]


def test_every_setting_changes_the_outcome(kind: Kind, engine: Build, comparisons: list[Comparison]) -> None:
    def outcome(config: Any) -> str:
        steps = config.num_steps(kind.num_rows)
        learner = kind.make(engine(optimization=config.optimization, total_steps=steps), comparisons, config)
        for _ in range(steps):
            learner.step()
        return str(learner.engine.weight_hash())

    assert kind.alternatives.keys() == {f.name for f in fields(kind.config)}
    usual = outcome(kind.config)
    assert outcome(kind.config) == usual
    others = {name: outcome(replace(kind.config, **{name: other})) for name, other in kind.alternatives.items()}
    assert not [name for name, found in others.items() if found == usual]


@pytest.mark.parametrize(
    ("name", "setting", "value"), [(name, *wrong) for name, kind in KINDS.items() for wrong in kind.wrong]
)
def test_a_wrong_setting_is_refused_by_name(name: str, setting: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"{name}\.{setting} .*got {value}"):
        replace(KINDS[name].config, **{setting: value})


def test_nothing_to_learn_from_is_refused(name: str, kind: Kind, engine: Build) -> None:
    with pytest.raises(ConfigError, match=f"{name}: (nothing|no [a-z]+) to learn from"):
        kind.make(engine(), [], kind.config)
