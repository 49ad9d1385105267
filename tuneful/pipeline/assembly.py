"""What stages that train have in common: the engine over their roles, and the model they leave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from tuneful.algorithms.dpo import DPOConfig
from tuneful.algorithms.ilql import ILQLConfig
from tuneful.algorithms.kto import KTOConfig
from tuneful.algorithms.orpo import ORPOConfig
from tuneful.algorithms.sft import SFTConfig
from tuneful.algorithms.simpo import SimPOConfig
from tuneful.engines import ranks, sharding
from tuneful.engines.local import LocalEngine
from tuneful.engines.remote import RemoteSampler
from tuneful.engines.remote_engine import RemoteEngine
from tuneful.errors import ConfigError
from tuneful.generation.guided import Guide
from tuneful.models.loading import context_length, save_model, write_reward_file
from tuneful.models.q_heads import QHeads
from tuneful.models.roles import Role, Roles
from tuneful.pipeline import learner_inputs
from tuneful.pipeline.context import Context
from tuneful.pipeline.guided import save_guide
from tuneful.runs.directory import RunDirectory

RowsConfig = TypeVar("RowsConfig", SFTConfig, DPOConfig, ORPOConfig, SimPOConfig, KTOConfig, ILQLConfig)


def engine_of(
    context: Context,
    roles: Roles,
    tokenizer: Any,
    config: Any,
    num_updates: int,
    given: learner_inputs.TrainingInputs,
    remote: RemoteSampler | None = None,
) -> LocalEngine:
    """The engine of a stage, whose learning rate follows its schedule over `num_updates`."""
    optimization = config.optimization.within(num_updates)
    if optimization != config.optimization:
        context.display.note(
            f"the learning rate rises over {optimization.warmup_steps} steps, not over optimization.warmup_steps = "
            f"{config.optimization.warmup_steps}: the run has {num_updates}"
        )
    if given.shard:
        sharding.shard(roles)
    build = LocalEngine if remote is None else partial(RemoteEngine, remote=remote)
    return build(
        roles.recomputing() if given.recompute_layers else roles,
        tokenizer,
        optimization=optimization,
        total_steps=num_updates,
        tokens_per_microbatch=given.tokens_per_microbatch,
    )


def holding(given: learner_inputs.TrainingInputs) -> dict[str, Any]:
    """How models are loaded; what will be split begins on the CPU, for it does not fit elsewhere."""
    return {"dtype": given.base_dtype, "device": "cpu" if given.shard and ranks.world_size() > 1 else None}


def within_context(config: RowsConfig, policy: Role) -> RowsConfig:
    """`config` with no row longer than the model's context; a learned position beyond it does not exist."""
    context = context_length(policy.model)
    return config if context is None else replace(config, max_tokens=min(config.max_tokens, context))


def with_heads(roles: Roles, seed: int) -> Roles:
    """The same with action values on the policy's states."""
    policy = present(roles.policy)
    config = policy.model.config.get_text_config()
    return replace(roles, heads=QHeads(config.hidden_size, config.vocab_size, seed=seed).to(policy.device))


def save_role(
    role: Role,
    tokenizer: Any,
    record: RunDirectory,
    reward: Mapping[str, Any] | None = None,
    *,
    guide: Guide | None = None,
    base: str | None = None,
) -> None:
    """`model/`, whole or not at all, by rank 0; `reward` becomes its `reward.json`. All ranks call this.

    guide: what chooses the tokens of a policy that speaks by value; base: the model that proposes them, if another.
    """
    weights = sharding.full_weights(role.model) if role.adapters is None else None
    if ranks.rank() > 0:
        return
    with record.output("model") as folder:
        if role.adapters is not None:
            role.adapters.save(role.name, folder)
            tokenizer.save_pretrained(folder)
        else:
            save_model(role.model, tokenizer, folder, weights)
        if reward is not None:
            write_reward_file(folder, dict(reward))
        if guide is not None:
            save_guide(folder, guide, base=base if guide.base is not None else None)


def present(role: Role | None) -> Role:
    if role is None:
        raise ConfigError("this stage needs a role that was not built")
    return role
