"""What each stage of a recipe takes in. An input is a path, a data set's name, `world:thing`, or `@stage`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tuneful.algorithms.stopping import HackingAlarm
from tuneful.models.adapters import LoRA
from tuneful.models.loading import Dtype
from tuneful.models.roles import ValueKind
from tuneful.settings import require_at_least


@dataclass(frozen=True, kw_only=True)
class GenerateInputs:
    """`do = "generate"`: completions of prompts."""

    model: str
    """Model directory, hub id, `world:model` or `@stage`."""
    prompts: str
    """Prompt file, data set or `world:prompts`."""
    split: Literal["reward", "rl", "dev", "test"] = "reward"
    """Which split of the prompts."""
    limit: int | None = None
    """At most this many prompts."""
    num_samples: int = 4
    """Completions per prompt."""
    max_new_tokens: int = 128
    """Longest completion, the end token included."""
    max_prompt_tokens: int | None = None
    """Longer prompts lose their beginning; None: they are refused when they do not fit the context."""
    temperature: float = 1.0
    """Sampling temperature."""

    def __post_init__(self) -> None:
        require_at_least(1, self, "", "limit", "num_samples", "max_new_tokens")


@dataclass(frozen=True, kw_only=True)
class LabelInputs:
    """`do = "label"`: rankings of completions."""

    completions: str
    """`@stage` that generated them, or a completions file."""
    raters: str
    """Who ranks them: `world:raters`."""
    raters_per_item: int = 3
    """Rankings of each prompt's completions."""


@dataclass(frozen=True, kw_only=True)
class ConsensusInputs:
    """`do = "consensus"`: judgments to comparisons."""

    judgments: str
    """`@stage` that labeled, or a judgments file."""
    completions: str
    """`@stage` that generated what was judged, or a completions file."""


@dataclass(frozen=True, kw_only=True)
class SFTInputs:
    """`algorithm = "sft"`."""

    model: str
    """Model to start from."""
    demonstrations: str
    """Demonstrations file, or comparisons whose chosen sides are imitated."""
    lora: LoRA | None = None
    """Train an adapter of this shape; without it all weights."""
    base_dtype: Dtype = "float32"
    """Precision of the frozen base; bfloat16 halves its memory and needs `lora`."""
    save_every: int = 0
    """Steps between checkpoints; 0 saves none."""
    tokens_per_microbatch: int = 8_192
    """Padded tokens per forward pass; changes memory, not results."""


@dataclass(frozen=True, kw_only=True)
class RewardInputs:
    """`algorithm = "reward"`."""

    model: str
    """Language model, encoder or reward model to start from."""
    comparisons: str
    """`@stage` that made them, a file or a data set."""
    normalise_prompts: str
    """Prompts on whose reference completions scores get mean 0 and standard deviation 1 (split rl)."""
    normalise_model: str
    """The reference that answers them."""
    normalise_samples: int = 256
    """How many completions that takes."""
    test: str | None = None
    """Held-out comparisons for the report."""
    max_new_tokens: int = 128
    """Longest reference completion."""
    max_prompt_tokens: int | None = None
    """Longer prompts lose their beginning when the reference answers them."""
    lora: LoRA | None = None
    """Train an adapter of this shape; without it all weights."""
    base_dtype: Dtype = "float32"
    """Precision of the frozen base; bfloat16 halves its memory and needs `lora`."""
    save_every: int = 0
    """Steps between checkpoints; 0 saves none."""
    tokens_per_microbatch: int = 8_192
    """Padded tokens per forward pass; changes memory, not results."""

    def __post_init__(self) -> None:
        require_at_least(16, self, "", "normalise_samples")


@dataclass(frozen=True, kw_only=True)
class PPOInputs:
    """`algorithm = "ppo"`."""

    model: str
    """The supervised model: the policy starts from it, and it is the reference."""
    prompts: str
    """Prompts to answer (split rl)."""
    reward: str
    """`@stage`, a reward model directory, a rule, or `./file.py:function`."""
    second_reward: str | None = None
    """A reward that is only watched, by the alarm."""
    reference: str | None = None
    """Another reference than `model`, for a policy that was tuned before."""
    start: Literal["reference", "tuned"] = "reference"
    """"tuned" allows a policy that starts away from its reference."""
    lora: LoRA | None = None
    """Train an adapter of this shape on the frozen base; without it all weights beside a frozen copy."""
    base_dtype: Dtype = "float32"
    """Precision of the frozen base; bfloat16 halves its memory and needs `lora`."""
    share_base: bool = False
    """One base for all roles: policy, reward and value as adapters, the reference with them off. Needs `lora`, and a
    reward trained with `lora` on the same model."""
    value: ValueKind = "head"
    """What estimates returns: a head on the policy's trunk, an adapter and head, or a model of its own."""
    value_from: str | None = None
    """Reward model that an adapter or model value starts from (InstructGPT); without it values start at 0."""
    evaluate_every: int = 20
    """Steps between evaluations on dev prompts."""
    evaluate_prompts: int = 100
    """Dev prompts per evaluation."""
    evaluate_samples: int = 1
    """Completions per dev prompt."""
    kl_budget: float | None = None
    """Nats per completion at which the run ends."""
    threshold: Mapping[str, float] = field(default_factory=dict)
    """Measures on dev prompts and the value at which the run ends, for example {reward = 2.0}."""
    alarm: HackingAlarm = HackingAlarm()
    """When reward hacking is called, and whether that ends the run."""
    save_every: int = 20
    """Steps between checkpoints; 0 saves none."""
    tokens_per_microbatch: int = 8_192
    """Padded tokens per forward pass; changes memory, not results."""

    def __post_init__(self) -> None:
        require_at_least(1, self, "", "evaluate_every", "evaluate_samples")
        require_at_least(2, self, "", "evaluate_prompts")


@dataclass(frozen=True, kw_only=True)
class DPOInputs:
    """`algorithm = "dpo"`."""

    model: str
    """The supervised model: the policy starts from it, and it is the reference."""
    comparisons: str
    """`@stage` that made them, a file or a data set."""
    lora: LoRA | None = None
    """Train an adapter of this shape on the frozen base; without it all weights beside a frozen copy."""
    base_dtype: Dtype = "float32"
    """Precision of the frozen base; bfloat16 halves its memory and needs `lora`."""
    save_every: int = 0
    """Steps between checkpoints; 0 saves none."""
    tokens_per_microbatch: int = 8_192
    """Padded tokens per forward pass; changes memory, not results."""


@dataclass(frozen=True, kw_only=True)
class EvaluateInputs:
    """`do = "evaluate"`: two models side by side on test prompts."""

    before: str
    """The model compared with."""
    after: str
    """The model that was tuned."""
    prompts: str
    """Prompts to answer (split test)."""
    limit: int | None = None
    """At most this many prompts."""
    num_samples: int = 4
    """Completions per prompt and model."""
    max_new_tokens: int = 128
    """Longest completion, the end token included."""
    max_prompt_tokens: int | None = None
    """Longer prompts lose their beginning; None: they are refused when they do not fit the context."""
    temperature: float = 1.0
    """Sampling temperature of both models."""
    reward: str | None = None
    """A reward to measure both with."""
    measures: tuple[str, ...] = ()
    """Further measures of a completion: `world:measure`."""
    judge: str | None = None
    """The measure whose higher value wins; without it the reward."""

    def __post_init__(self) -> None:
        require_at_least(2, self, "", "limit")
        require_at_least(1, self, "", "num_samples", "max_new_tokens")
