"""tuneful: tune a language model to what people prefer.

The names below are the package from Python; everything else is found in its module. Each is imported when it is first
used, so `import tuneful` costs nothing.

    from pathlib import Path
    import tuneful

    recipe = tuneful.load_recipe(Path("my_recipe.toml"), ["ppo.kl_coef=0.1"], seed=1)
    tuneful.run_recipe(recipe, Path("runs/mine"))

    reward = tuneful.load_reward("runs/mine/reward/model")
    reward([tuneful.Prompt.user("How do I fix a dripping tap?")], [tuneful.Completion("Close the water first.")])
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "A2C",
    "DPO",
    "DQN",
    "GRPO",
    "ILQL",
    "KTO",
    "NLPO",
    "ORPO",
    "PPO",
    "RAFT",
    "SFT",
    "TRPO",
    "A2CConfig",
    "Candidates",
    "Comparison",
    "Completion",
    "DPOConfig",
    "DQNConfig",
    "Demonstration",
    "GRPOConfig",
    "ILQLConfig",
    "Judgment",
    "KTOConfig",
    "LearnedReward",
    "LocalEngine",
    "NLPOConfig",
    "ORPOConfig",
    "Optimization",
    "PPOConfig",
    "Prompt",
    "RAFTConfig",
    "RLOOConfig",
    "Reinforce",
    "ReinforceConfig",
    "RewardModel",
    "RewardModelConfig",
    "SFTConfig",
    "Sampling",
    "SimPO",
    "SimPOConfig",
    "TRPOConfig",
    "TunefulError",
    "UnpairedPreference",
    "consensus",
    "load_recipe",
    "load_reward",
    "load_tokenizer",
    "policy_roles",
    "reward_roles",
    "run_recipe",
    "to_comparisons",
]

_NAMES_OF = {
    "tuneful.algorithms.a2c": ("A2C", "A2CConfig"),
    "tuneful.algorithms.dpo": ("DPO", "DPOConfig"),
    "tuneful.algorithms.dqn": ("DQN", "DQNConfig"),
    "tuneful.algorithms.grpo": ("GRPO", "GRPOConfig"),
    "tuneful.algorithms.ilql": ("ILQL", "ILQLConfig"),
    "tuneful.algorithms.kto": ("KTO", "KTOConfig"),
    "tuneful.algorithms.nlpo": ("NLPO", "NLPOConfig"),
    "tuneful.algorithms.orpo": ("ORPO", "ORPOConfig"),
    "tuneful.algorithms.ppo": ("PPO", "PPOConfig"),
    "tuneful.algorithms.raft": ("RAFT", "RAFTConfig"),
    "tuneful.algorithms.reinforce": ("Reinforce", "ReinforceConfig", "RLOOConfig"),
    "tuneful.algorithms.reward_model": ("RewardModel", "RewardModelConfig"),
    "tuneful.algorithms.sft": ("SFT", "SFTConfig"),
    "tuneful.algorithms.simpo": ("SimPO", "SimPOConfig"),
    "tuneful.algorithms.trpo": ("TRPO", "TRPOConfig"),
    "tuneful.engines.local": ("LocalEngine",),
    "tuneful.engines.optimization": ("Optimization",),
    "tuneful.errors": ("TunefulError",),
    "tuneful.feedback.consensus": ("consensus",),
    "tuneful.feedback.export": ("to_comparisons",),
    "tuneful.generation.sampling": ("Sampling",),
    "tuneful.models.loading": ("load_tokenizer",),
    "tuneful.models.roles": ("policy_roles", "reward_roles"),
    "tuneful.pipeline.recipe": ("load_recipe",),
    "tuneful.pipeline.run": ("run_recipe",),
    "tuneful.records": (
        "Candidates",
        "Comparison",
        "Completion",
        "Demonstration",
        "Judgment",
        "Prompt",
        "UnpairedPreference",
    ),
    "tuneful.rewards.learned": ("LearnedReward",),
    "tuneful.rewards.load": ("load_reward",),
}
_MODULE_OF = {name: module for module, names in _NAMES_OF.items() for name in names}

if TYPE_CHECKING:
    from tuneful.algorithms.a2c import A2C, A2CConfig
    from tuneful.algorithms.dpo import DPO, DPOConfig
    from tuneful.algorithms.dqn import DQN, DQNConfig
    from tuneful.algorithms.grpo import GRPO, GRPOConfig
    from tuneful.algorithms.ilql import ILQL, ILQLConfig
    from tuneful.algorithms.kto import KTO, KTOConfig
    from tuneful.algorithms.nlpo import NLPO, NLPOConfig
    from tuneful.algorithms.orpo import ORPO, ORPOConfig
    from tuneful.algorithms.ppo import PPO, PPOConfig
    from tuneful.algorithms.raft import RAFT, RAFTConfig
    from tuneful.algorithms.reinforce import Reinforce, ReinforceConfig, RLOOConfig
    from tuneful.algorithms.reward_model import RewardModel, RewardModelConfig
    from tuneful.algorithms.sft import SFT, SFTConfig
    from tuneful.algorithms.simpo import SimPO, SimPOConfig
    from tuneful.algorithms.trpo import TRPO, TRPOConfig
    from tuneful.engines.local import LocalEngine
    from tuneful.engines.optimization import Optimization
    from tuneful.errors import TunefulError
    from tuneful.feedback.consensus import consensus
    from tuneful.feedback.export import to_comparisons
    from tuneful.generation.sampling import Sampling
    from tuneful.models.loading import load_tokenizer
    from tuneful.models.roles import policy_roles, reward_roles
    from tuneful.pipeline.recipe import load_recipe
    from tuneful.pipeline.run import run_recipe
    from tuneful.records import (
        Candidates,
        Comparison,
        Completion,
        Demonstration,
        Judgment,
        Prompt,
        UnpairedPreference,
    )
    from tuneful.rewards.learned import LearnedReward
    from tuneful.rewards.load import load_reward
else:  # a type checker that saw this would take every misspelt name for a name

    def __getattr__(name):
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
