"""The pages say of every number that a step logs what it means and what is normal, and of none that no step logs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tuneful.algorithms.a2c import A2C, A2CConfig
from tuneful.algorithms.dpo import DPO, DPOConfig
from tuneful.algorithms.dqn import DQN, DQNConfig
from tuneful.algorithms.grpo import GRPO, GRPOConfig
from tuneful.algorithms.ilql import ILQL, ILQLConfig
from tuneful.algorithms.kto import KTO, KTOConfig, unpair
from tuneful.algorithms.nlpo import NLPO, NLPOConfig
from tuneful.algorithms.orpo import ORPO, ORPOConfig
from tuneful.algorithms.ppo import PPO, PPOConfig
from tuneful.algorithms.raft import RAFT, RAFTConfig
from tuneful.algorithms.reinforce import Reinforce, ReinforceConfig, RLOOConfig
from tuneful.algorithms.reward_model import RewardModel, RewardModelConfig, group_pairs
from tuneful.algorithms.sft import SFT, SFTConfig
from tuneful.algorithms.simpo import SimPO, SimPOConfig
from tuneful.algorithms.trpo import TRPO, TRPOConfig
from tuneful.generation.rollout import Scored
from tuneful.pipeline.recipe import ALGORITHMS
from tuneful.records import Comparison, Demonstration, Prompt
from tuneful.rewards.reward import Reward

PAGES = Path(__file__).resolve().parents[2] / "docs" / "explanation"
MEASURED = "<!-- measured by bench/compared.py"
"""Below it a table is written from the logs themselves, and would explain nothing."""

PAGE_OF = {name: name for name in ALGORITHMS} | {"reward": "reward-model", "rloo": "reinforce"}
OWN: dict[str, Any] = {"prompts_per_step": 2, "samples_per_prompt": 2, "max_new_tokens": 4}
ROWS = [([3, 4], [5, 6, 7]), ([8], [9, 3])]
BESIDE: dict[str, Any] = {"ptx_coef": 1.0, "ptx_rows": 1, "max_update_kl": 1.0}
"""What makes PPO and NLPO log all they can."""

OF_THE_LOOP = {"seconds"}
"""Logged beside a step's own numbers, told on PPO's page."""

Step = Callable[[], Mapping[str, float]]


@pytest.fixture
def steps(
    policy_engine: Callable[..., Any],
    reward_engine: Callable[..., Any],
    heads_engine: Callable[..., Any],
    prompts: list[Prompt],
    comparisons: list[Comparison],
    variety: Reward,
) -> dict[str, Step]:
    """One step of each algorithm on the tiny model."""

    def own(learner: Any, config: Any, *more: Any, engine: Callable[..., Any] = policy_engine) -> Step:
        return lambda: learner(engine(), prompts, variety, config, *more).step()

    def given(learner: Any, config: Any, rows: Any = comparisons) -> Step:
        return lambda: learner(engine := policy_engine(), rows, config, engine.tokenizer).step()

    def reward() -> Mapping[str, float]:
        engine, config = reward_engine(), RewardModelConfig()
        groups = group_pairs(comparisons, engine.roles.reward, engine.tokenizer, config.max_tokens)
        return RewardModel(engine, groups, config).step()

    scored = [Scored(prompt, completion, float(len(completion))) for prompt, completion in ROWS]
    return {
        "sft": given(SFT, SFTConfig(), [Demonstration(one.prompt, one.chosen) for one in comparisons]),
        "reward": reward,
        "reinforce": own(Reinforce, ReinforceConfig(**OWN)),
        "rloo": own(Reinforce, RLOOConfig(**OWN)),
        "grpo": own(GRPO, GRPOConfig(**OWN)),
        "a2c": own(A2C, A2CConfig(**OWN)),
        "ppo": own(PPO, PPOConfig(**OWN, **BESIDE), ROWS),
        "nlpo": own(NLPO, NLPOConfig(**OWN, **BESIDE), ROWS),
        "trpo": own(TRPO, TRPOConfig(**OWN)),
        "raft": own(RAFT, RAFTConfig(**OWN)),
        "dqn": own(DQN, DQNConfig(**OWN), engine=heads_engine),
        "ilql": lambda: ILQL(heads_engine(), scored, ILQLConfig()).step(),
        "dpo": given(DPO, DPOConfig()),
        "orpo": given(ORPO, ORPOConfig()),
        "simpo": given(SimPO, SimPOConfig()),
        "kto": given(KTO, KTOConfig(), unpair(comparisons)),
    }


def told(page: str) -> dict[str, str]:
    """By metric, what the tables of a page's text call normal."""
    normal = {}
    for line in page.partition(MEASURED)[0].splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) > 2 and re.fullmatch(r"`\w+`(, `\w+`)*", cells[0]):
            normal |= dict.fromkeys(re.findall(r"`(\w+)`", cells[0]), cells[2])
    return normal


@pytest.mark.parametrize("page", sorted(set(PAGE_OF.values())))
def test_a_page_tells_what_is_logged(page: str, steps: dict[str, Step]) -> None:
    logged = {metric for name, of in PAGE_OF.items() if of == page for metric in steps[name]()}
    normal = told((PAGES / f"{page}.md").read_text(encoding="utf-8"))
    assert logged <= normal.keys() <= logged | OF_THE_LOOP
    assert not [metric for metric, words in normal.items() if not words]


def test_reader_of_tables() -> None:
    """Names in the first column with what the third says of them, the measured part left out."""
    page = "| metric | means | normal |\n|---|---|---|\n| `a`, `b_c` | x \\| y | falls | 1 |\n| `d` | z | |\n"
    page += f"| one | `e` | no |\n\nWith `f`.\n\n{MEASURED}: nothing after this is kept -->\n\n| `g` | 1 | 2 |\n"
    assert told(page) == {"a": "falls", "b_c": "falls", "d": ""}
