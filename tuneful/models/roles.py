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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tuneful.errors import ConfigError
from tuneful.models.adapters import AdapterSet, LoRA
from tuneful.models.llama import is_llama_like
from tuneful.models.loading import (
    Dtype,
    encoder_decoder,
    head_of,
    is_adapter,
    is_scorer,
    load_language_model,
    load_scorer,
    read_reward_file,
    scalar_head,
)

ValueKind = Literal["head", "adapter", "model"]

LORA_ON_ENCODER = "lora on an encoder reward model is not supported; leave lora out to train all weights"
"""The refusal of adapters where a reward model has no `score` head."""


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
    recompute: bool = False
    """Keep only each layer's input for the backward pass, and compute the layer again then."""

    @property
    def before_recompute(self) -> Callable[[], None] | None:
        """What must happen before a layer is computed again; None: its activations are kept."""
        return self.activate if self.recompute else None

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def half(self) -> bool:
        """True when its model computes in half precision, where rounding moves logprobs and scores by hundredths."""
        return bool(self.model.dtype != torch.float32)

    @property
    def rounding(self) -> float:
        """What two correct passes may differ by in a logprob or score: in float32 the largest, in half precision the
        mean, for the largest of some is often above it (docs/decisions/0009)."""
        return 5e-2 if self.half else 1e-4

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
    heads: nn.Module | None = None
    """What a learner reads off the policy's states besides, trained with it."""

    def recomputing(self) -> Roles:
        """The same roles, whose layers are computed again in the backward pass.

        Raises ConfigError for models that cannot.
        """
        for role in (self.policy, self.value, self.reward):
            if role is not None and not is_llama_like(role.model):
                raise ConfigError(
                    f"recompute_layers: only for Llama, Mistral and Qwen, but the {role.name} "
                    f"{role.model.name_or_path} is a {role.model.config.model_type}; lower tokens_per_microbatch"
                )

        def one(role: Role | None) -> Role | None:
            return None if role is None else replace(role, recompute=True)

        return Roles(one(self.policy), self.reference, one(self.value), one(self.reward), self.heads)

    def weights(self) -> dict[str, nn.Parameter]:
        """All trained weights of all roles, each once, by name."""
        roles = (self.policy, self.reference, self.value, self.reward)
        found = {name: weight for role in roles if role is not None for name, weight in role.weights.items()}
        beside = {} if self.heads is None else named_weights("heads", self.heads)
        return found | {name: weight for name, weight in beside.items() if weight.requires_grad}


def check_roles(
    *,
    adapters: bool,
    dtype: Dtype = "float32",
    value: ValueKind | None = None,
    value_from: str | Path | None = None,
    share_base: bool = False,
    family: str | None = None,
) -> None:
    """Raises ConfigError for settings of roles that cannot stand together.

    family: the type of the policy where that is an encoder-decoder, see `encoder_decoder`.
    """
    if not adapters and dtype != "float32":
        raise ConfigError(f'base_dtype = "{dtype}" needs lora: weights in {dtype} would round small updates away')
    if not adapters and share_base:
        raise ConfigError("share_base needs lora: without an adapter the policy's training would change the reward")
    if not adapters and value == "adapter":
        raise ConfigError('value = "adapter" needs adapters; set lora, or value = "head" or "model"')
    if value_from is not None and value == "head":
        raise ConfigError('value_from needs value = "adapter" or "model": a head alone reads the policy\'s trunk')
    if family is None:
        return
    if value == "model":
        raise ConfigError(
            f'value = "model" cannot follow a {family}, an encoder-decoder, which keeps prompt and answer apart; '
            'set value = "head" or "adapter"'
        )
    if value_from is not None:
        raise ConfigError(
            f"value_from: the reward model of a {family} reads prompt and answer in one row, a value the states of the "
            "answer; leave value_from out"
        )
    if share_base:
        raise ConfigError(
            f"share_base: the reward model of a {family} trains all its weights, so it is no adapter on a base; leave "
            "share_base out"
        )


def policy_roles(
    path: str | Path,
    *,
    lora: LoRA | None = None,
    reference: str | Path | None = None,
    with_reference: bool = True,
    value: ValueKind | None = None,
    value_from: str | Path | None = None,
    dtype: Dtype = "float32",
    device: str | None = None,
    seed: int = 0,
) -> Roles:
    """Roles for training the language model at `path`, which is the supervised model and the reference.

    lora: train an adapter on a frozen base; the reference is then the base with adapters off. None trains all weights
    and keeps a frozen copy. reference: another reference directory, for a policy that was tuned before. value: what
    estimates returns, see the module; value_from: a reward model that it starts from, head, gain and bias included
    (InstructGPT, arXiv 2203.02155); without one it starts from the policy's weights and estimates 0. dtype: of the
    frozen base; adapters and heads are float32 whatever it is. device: of all; None: CUDA when there is one.
    """
    check_roles(
        adapters=lora is not None, dtype=dtype, value=value, value_from=value_from, family=encoder_decoder(path)
    )
    model = load_language_model(path, dtype=dtype, device=device)
    frozen = None
    if reference is not None:
        frozen = load_language_model(reference, dtype=dtype, device=device)
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
    return Roles(policy, reference_role, _value_role(value, policy, lora, path, value_from, seed) if value else None)


def reward_roles(
    path: str | Path,
    *,
    lora: LoRA | None = None,
    dtype: Dtype = "float32",
    device: str | None = None,
    seed: int = 0,
) -> Roles:
    """Roles for training a reward model that starts from the language model, encoder or reward model at `path`.

    device: None means CUDA when there is one.
    """
    check_roles(adapters=lora is not None, dtype=dtype)
    model = load_scorer(path, seed=seed, dtype=dtype, device=device)
    head = head_of(model)
    if lora is None:
        return Roles(reward=Role("reward", model, head=head, weights=named_weights("reward", model)))
    if head is None:
        raise ConfigError(LORA_ON_ENCODER)
    model.requires_grad_(False)
    adapters = AdapterSet(model)
    adapters.add("reward", lora, seed=seed, with_head="score")
    weights = adapters.named_parameters("reward")
    return Roles(reward=Role("reward", model, adapters, ("reward",), adapters.head("score"), weights))


def reward_on(base: Role, path: str | Path) -> Role:
    """The reward model at `path`, an adapter with a head, as one more adapter on the base of another role."""
    check_roles(adapters=base.adapters is not None, share_base=True)
    assert base.adapters is not None
    weight = _load_reward_adapter(base.adapters, "reward", path, otherwise="leave share_base out")
    return Role("reward", base.model, base.adapters, ("reward",), _head(weight, base.device))


def second_policy(policy: Role, name: str) -> Role:
    """A role with the weights of `policy` that does not follow it: an adapter more on its base, or a model more."""
    if policy.adapters is None:
        return Role(name, copy.deepcopy(policy.model).requires_grad_(False))
    policy.adapters.copy(policy.active[-1], name)
    return Role(name, policy.model, policy.adapters, (*policy.active[:-1], name))


def follow(second: Role, policy: Role) -> None:
    """Give a role that `second_policy` made the weights that `policy` has now."""
    with torch.no_grad():
        for weight, now in zip(own_weights(second).values(), own_weights(policy).values(), strict=True):
            weight.copy_(now)


def own_weights(role: Role) -> dict[str, nn.Parameter]:
    """The weights in which a policy differs from its base: its adapter's, or all of a model."""
    if role.adapters is None:
        return dict(role.model.named_parameters())
    return role.adapters.named_parameters(role.active[-1])


def _load_reward_adapter(adapters: AdapterSet, name: str, path: str | Path, *, otherwise: str) -> Tensor:
    """Add the reward adapter saved at `path` as `name`; the weights [1, d] of its head. otherwise: the other mend."""
    if not is_adapter(path):
        raise ConfigError(
            f"{path}: this reward is a model of its own; train it with lora to share a base, or {otherwise}"
        )
    heads = adapters.load(name, path)
    if "score.weight" not in heads:
        raise ConfigError(f"{path}: this adapter has no score head, so it is no reward model")
    return heads["score.weight"]


def _value_role(
    kind: ValueKind, policy: Role, lora: LoRA | None, path: str | Path, start: str | Path | None, seed: int
) -> Role:
    width = policy.model.config.get_text_config().hidden_size
    if kind == "head":
        head = _head(torch.zeros(1, width), policy.device)
        return Role("value", policy.model, policy.adapters, policy.active, head, _of_head(head))
    if start is not None and not is_scorer(start):
        raise ConfigError(f"value_from: {start} is no reward model; leave value_from out to start from the policy")
    facts = read_reward_file(Path(start)) if start is not None else {}
    gain, bias = facts.get("gain", 1.0), facts.get("bias", 0.0)
    if kind == "model":
        model = load_scorer(start or path, seed=seed, device=str(policy.device))
        weight = torch.zeros(1, width) if start is None else scalar_head(model).weight.detach()
        head = _head(gain * weight, policy.device, bias)
        return Role("value", model, head=head, weights=named_weights("value", model.base_model) | _of_head(head))
    assert policy.adapters is not None and lora is not None
    weight = torch.zeros(1, width)
    if start is None:
        policy.adapters.add("value", lora, seed=seed + 1)
    else:
        weight = _load_reward_adapter(policy.adapters, "value", start, otherwise='set value = "model"')
    head = _head(gain * weight, policy.device, bias)
    weights = policy.adapters.named_parameters("value") | _of_head(head)
    return Role("value", policy.model, policy.adapters, ("value",), head, weights)


def _head(weight: Tensor, device: torch.device, bias: float = 0.0) -> nn.Linear:
    """Linear(d, 1) with these weights [1, d]."""
    head = nn.Linear(weight.shape[1], 1, device=device)
    head.weight.data.copy_(weight)
    nn.init.constant_(head.bias, bias)
    return head


def _of_head(head: nn.Linear) -> dict[str, nn.Parameter]:
    return named_weights("value.head", head)


def named_weights(prefix: str, module: nn.Module) -> dict[str, nn.Parameter]:
    """All weights of a module under names that begin with `prefix`."""
    return {f"{prefix}.{name}": parameter for name, parameter in module.named_parameters()}
