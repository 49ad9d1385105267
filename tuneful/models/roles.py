"""Roles: which weights are the policy, the reference, the reward and the value.

A role is a model, the adapters that are active on it, and, for scalar roles, a head on the last hidden state. Roles on
one base differ in their adapters only; separate models are the same thing with one model each. Everything above reads a
Role and cannot tell the two apart.

    role        full fine-tuning            adapters on one base
    policy      a model, all of it trained  the base with adapter "policy"
    reference   a frozen copy               the base with adapters off
    reward      a classifier of its own     the base with adapter "reward"
    value       a head on the policy's trunk, an adapter and head on the base, or a model of its own
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from tuneful.errors import ConfigError
from tuneful.models.adapters import AdapterSet, LoRA
from tuneful.models.loading import Dtype, load_causal, load_scorer, scalar_head

ValueKind = Literal["head", "adapter", "model"]


@dataclass(frozen=True, slots=True)
class Role:
    """One part a model plays. `head` is a Linear(d, 1) on the last hidden state; None for language models, and for
    encoder classifiers, which pool in their own way. `weights` are those this role trains, by a stable name."""

    name: str
    model: Any
    adapters: AdapterSet | None = None
    active: tuple[str, ...] = ()
    head: nn.Linear | None = None
    weights: Mapping[str, nn.Parameter] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.model.parameters()).device
        return device

    def activate(self) -> None:
        """Switch this role's adapters on, and no others."""
        if self.adapters is not None:
            self.adapters.activate(self.active)

    def shares_trunk(self, other: Role) -> bool:
        """True when one forward pass serves both roles."""
        return self.model is other.model and self.active == other.active


@dataclass(frozen=True, slots=True)
class Roles:
    """The parts of one training run; None where the algorithm has no use for one."""

    policy: Role | None = None
    reference: Role | None = None
    value: Role | None = None
    reward: Role | None = None

    def weights(self) -> dict[str, nn.Parameter]:
        """All trained weights of all roles, each once, by name."""
        roles = (self.policy, self.reference, self.value, self.reward)
        return {name: weight for role in roles if role is not None for name, weight in role.weights.items()}


def policy_roles(
    path: str | Path,
    *,
    lora: LoRA | None = None,
    reference: str | Path | None = None,
    with_reference: bool = True,
    value: ValueKind | None = None,
    value_from: str | Path | None = None,
    dtype: Dtype = "float32",
    seed: int = 0,
) -> Roles:
    """Roles for training the language model at `path`, which is the supervised model and the reference.

    lora: train an adapter on a frozen base; the reference is then the base with adapters off. None trains all weights
    and keeps a frozen copy. reference: another reference directory, for a policy that was tuned before. value: what
    estimates returns, see the module; value_from: a reward model directory that a value of its own starts from.
    """
    model = load_causal(path, dtype=dtype)
    frozen = None
    if reference is not None:
        frozen = load_causal(reference, dtype=dtype)
    elif with_reference and lora is None:
        frozen = copy.deepcopy(model)
    if frozen is not None:
        frozen.requires_grad_(False)

    if lora is None:
        policy = Role("policy", model, weights=named_weights("policy", model))
    else:
        model.requires_grad_(False)
        adapters = AdapterSet(model)
        adapters.add("policy", lora, seed=seed)
        policy = Role("policy", model, adapters, ("policy",), weights=adapters.named_parameters("policy"))
    reference_role = None
    if frozen is not None:
        reference_role = Role("reference", frozen)
    elif with_reference:
        reference_role = Role("reference", model, policy.adapters)
    return Roles(policy, reference_role, _value_role(value, policy, lora, value_from or path, seed) if value else None)


def reward_roles(path: str | Path, *, lora: LoRA | None = None, dtype: Dtype = "float32", seed: int = 0) -> Roles:
    """Roles for training a reward model that starts from the language model, encoder or reward model at `path`."""
    model = load_scorer(path, seed=seed, dtype=dtype)
    head = scalar_head(model) if hasattr(model, "score") else None
    if lora is None:
        return Roles(reward=Role("reward", model, head=head, weights=named_weights("reward", model)))
    if head is None:
        raise ConfigError("lora on an encoder reward model is not supported; leave lora out to train all weights")
    model.requires_grad_(False)
    adapters = AdapterSet(model)
    adapters.add("reward", lora, seed=seed, with_head="score")
    weights = adapters.named_parameters("reward")
    return Roles(reward=Role("reward", model, adapters, ("reward",), adapters.head("score"), weights))


def _value_role(kind: ValueKind, policy: Role, lora: LoRA | None, start: str | Path, seed: int) -> Role:
    if kind == "model":
        model = load_scorer(start, seed=seed)
        head = scalar_head(model)
        return Role("value", model, head=head, weights=named_weights("value", model))
    width = policy.model.config.get_text_config().hidden_size
    head = nn.Linear(width, 1, device=policy.device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    if kind == "head":
        return Role("value", policy.model, policy.adapters, policy.active, head, named_weights("value.head", head))
    if policy.adapters is None or lora is None:
        raise ConfigError('value = "adapter" needs adapters; set lora, or value = "head" or "model"')
    policy.adapters.add("value", lora, seed=seed + 1)
    weights = policy.adapters.named_parameters("value") | named_weights("value.head", head)
    return Role("value", policy.model, policy.adapters, ("value",), head, weights)


def named_weights(prefix: str, module: nn.Module) -> dict[str, nn.Parameter]:
    """All weights of a module under names that begin with `prefix`."""
    return {f"{prefix}.{name}": parameter for name, parameter in module.named_parameters()}
