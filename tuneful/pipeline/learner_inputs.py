"""What each stage that trains takes in, beside the settings of its algorithm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tuneful.algorithms.dqn import DQNConfig
from tuneful.algorithms.ppo import PPOConfig, require_pretraining
from tuneful.algorithms.reward_model import RewardModelConfig, require_no_center
from tuneful.algorithms.stopping import HackingAlarm
from tuneful.data.batching import TOKENS_PER_PASS
from tuneful.engines.remote import refuse_no_server
from tuneful.errors import ConfigError, did_you_mean
from tuneful.models.adapters import LoRA
from tuneful.models.loading import Dtype
from tuneful.models.roles import ValueKind, check_roles
from tuneful.pipeline.marks import DataInput, JudgmentsInput, ModelInput, PromptsInput, TestInput
from tuneful.rewards.tables import RewardInput, part_names
from tuneful.settings import require_above, require_at_least

ON_POLICY = ("reinforce", "rloo", "grpo", "a2c", "ppo", "nlpo", "trpo", "raft", "dqn")
"""The algorithms that train on the policy's own answers."""

DEV_MEASURES = ("reward", "kl", "eos_share", "length", "distinct_2", "phrase_z", "phrase_ratio")
"""What is measured on dev prompts while a policy trains."""

SECOND_MEASURES = ("second_reward", "second_reward_low", "second_reward_high")
"""What is measured there beside it when there is a second reward."""


@dataclass(frozen=True, kw_only=True)
class TrainingInputs:
    """How weights are held, saved and fed."""

    lora: LoRA | None = None
    """Train an adapter of this shape on the frozen base; without it all weights."""
    base_dtype: Dtype = "float32"
    """Precision of the frozen base; bfloat16 halves its memory, nf4 takes about a third of that; both need `lora`."""
    save_every: int = 0
    """Steps between checkpoints; 0 saves none."""
    tokens_per_microbatch: int = TOKENS_PER_PASS
    """Padded tokens per forward pass; changes memory, not results."""
    recompute_layers: bool = False
    """Keep only each layer's input and compute the layer again when going backward: less memory, a third more time."""
    shard: bool = False
    """Under torchrun, each process holds a part of every layer and gathers a layer while it computes, for a model that
    does not fit on one device. Llama, Mistral and Qwen; one process alone holds all."""

    def __post_init__(self) -> None:
        require_at_least(0, self, "", "save_every", hint="0 saves no checkpoints")
        require_at_least(1, self, "", "tokens_per_microbatch")
        check_roles(adapters=self.lora is not None, dtype=self.base_dtype)
        if self.shard and self.base_dtype == "nf4":
            raise ConfigError('shard: weights in nf4 cannot be split; set base_dtype = "bfloat16", or leave shard out')

    def check_beside(self, config: Any) -> None:
        """Refuse settings of the algorithm that do not go with what it takes in."""


@dataclass(frozen=True, kw_only=True)
class SFTInputs(TrainingInputs):
    """`algorithm = "sft"`."""

    model: ModelInput
    """Model to start from."""
    demonstrations: DataInput
    """Demonstrations file, or comparisons whose chosen sides are imitated."""


@dataclass(frozen=True, kw_only=True)
class RewardInputs(TrainingInputs):
    """`algorithm = "reward"`."""

    model: ModelInput
    """Language model, encoder or reward model to start from."""
    comparisons: DataInput | None = None
    """`@stage` that made them, a file or a data set."""
    rankings: JudgmentsInput | None = None
    """In their place whole rankings, each rater's apart and weighed by how far the rater can be trusted: `@stage` that
    labeled or collected, or a judgments file. Needs `completions`."""
    completions: DataInput | None = None
    """Of `rankings`: `@stage` that generated or collected what was ranked, or a completions file."""
    preferences: DataInput | None = None
    """In their place good and bad answers: a file of labels, or comparisons, whose two sides become one answer each."""
    normalise_prompts: PromptsInput
    """Prompts on whose reference completions scores get mean 0 and standard deviation 1 (split rl)."""
    normalise_model: ModelInput
    """The reference that answers them."""
    normalise_samples: int = 256
    """How many completions that takes."""
    length_control: bool = False
    """Take from every score what its number of words says of it, by the line that fits the reference completions."""
    test: TestInput | None = None
    """Held-out comparisons for the report."""
    max_new_tokens: int = 128
    """Longest reference completion."""
    max_prompt_tokens: int | None = None
    """Longer prompts lose their beginning when the reference answers them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(16, self, "", "normalise_samples")
        if [self.comparisons, self.rankings, self.preferences].count(None) != 2:
            raise ConfigError("a reward learns from comparisons, from rankings or from preferences; give one of them")
        if (self.rankings is None) != (self.completions is None):
            raise ConfigError("rankings and completions go together: the judgments, and the answers that were ranked")
        require_at_least(1, self, "", "max_new_tokens", "max_prompt_tokens")

    def check_beside(self, config: RewardModelConfig) -> None:
        if self.comparisons is None:
            require_no_center(config)


@dataclass(frozen=True, kw_only=True)
class OnPolicyInputs(TrainingInputs):
    """`algorithm = "reinforce"`, `"rloo"`, `"grpo"` or `"raft"`."""

    model: ModelInput
    """The supervised model: the policy starts from it, and it is the reference."""
    prompts: PromptsInput
    """Prompts to answer (split rl)."""
    reward: RewardInput
    """`@stage`, a reward model, a rule, `./file.py:function`, a table, or a list of weighted parts."""
    second_reward: RewardInput | None = None
    """A reward that is only watched, by the alarm."""
    reference: ModelInput | None = None
    """Another reference than `model`, for a policy that was tuned before."""
    start: Literal["reference", "tuned"] = "reference"
    """"tuned" allows a policy that starts away from its reference."""
    lora: LoRA | None = None
    """Train an adapter of this shape on the frozen base; without it all weights beside a frozen copy."""
    share_base: bool = False
    """One base for all roles: policy, reward and a value as adapters, the reference with them off. Needs `lora`, and a
    reward trained with `lora` on the same model."""
    sampler: str | None = None
    """URL of a server that samples in place of this process, such as `http://127.0.0.1:8000`; it serves `model`, and is
    given the adapter after each step. Needs `lora`."""
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

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, self, "", "evaluate_every", "evaluate_samples")
        require_at_least(2, self, "", "evaluate_prompts")
        require_above(0, self, "", "kl_budget", hint="healthy runs end between .5 and 6")
        check_roles(adapters=self.lora is not None, share_base=self.share_base)
        if self.sampler is not None:
            refuse_no_server(self.sampler)
            if self.lora is None:
                raise ConfigError("sampler needs lora: an adapter is all that is sent to the server")
        if self.share_base and self.shard:
            raise ConfigError(
                "share_base: each process scores other answers, so layers cannot be split; leave shard out"
            )
        if self.share_base and not isinstance(self.reward, str):
            raise ConfigError("share_base needs a reward model alone, which is an adapter on the base; got a table")
        of_parts = part_names(self.reward) if isinstance(self.reward, tuple) else ()
        known = [*DEV_MEASURES, *(f"reward_{name}" for name in of_parts)]
        known += [] if self.second_reward is None else SECOND_MEASURES
        for name in self.threshold:
            if name not in known:
                raise ConfigError(f'threshold: no measure on dev prompts is called "{name}"{did_you_mean(name, known)}')


@dataclass(frozen=True, kw_only=True)
class ActorCriticInputs(OnPolicyInputs):
    """`algorithm = "a2c"`: a policy beside a value function."""

    value: ValueKind = "head"
    """What estimates returns: a head on the policy's trunk, an adapter and head, or a model of its own."""
    value_from: ModelInput | None = None
    """Reward model that an adapter or model value starts from (InstructGPT); without it values start at 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_roles(adapters=self.lora is not None, value=self.value, value_from=self.value_from)


@dataclass(frozen=True, kw_only=True)
class PPOInputs(ActorCriticInputs):
    """`algorithm = "ppo"`."""

    pretraining: DataInput | None = None
    """Demonstrations that are imitated beside, weighed by `ptx_coef` (PPO-ptx)."""

    def check_beside(self, config: PPOConfig) -> None:
        require_pretraining(config, self.pretraining)


@dataclass(frozen=True, kw_only=True)
class NLPOInputs(PPOInputs):
    """`algorithm = "nlpo"`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sampler is not None:
            raise ConfigError("sampler: the mask policy of nlpo reads along with the model, here; leave sampler out")
        if self.shard:
            raise ConfigError("shard: the mask policy of nlpo is a copy that is not split; leave shard out")


@dataclass(frozen=True, kw_only=True)
class DQNInputs(OnPolicyInputs):
    """`algorithm = "dqn"`."""

    completions: DataInput | None = None
    """`@stage` that generated them, or a file of answers: scored by `reward`, they are what the replay begins with."""
    comparisons: DataInput | None = None
    """In their place, with `offline = true`, `@stage` that made comparisons, a file or a data set: chosen answers score
    p, rejected 1 - p, and `reward` is only watched."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.completions is not None and self.comparisons is not None:
            raise ConfigError("dqn begins with completions or with comparisons; leave one of the two out")
        if self.sampler is not None:
            raise ConfigError("sampler: dqn chooses tokens by heads that run beside the model, here; leave sampler out")

    def check_beside(self, config: DQNConfig) -> None:
        if config.offline and self.completions is None and self.comparisons is None:
            raise ConfigError("offline: dqn samples nothing then; give completions or comparisons to learn from")
        if self.comparisons is not None and not config.offline:
            raise ConfigError(
                "comparisons: their p is no score of the reward, so that answers sampled beside could not be compared "
                "with theirs; set offline = true, or give completions"
            )


@dataclass(frozen=True, kw_only=True)
class TRPOInputs(ActorCriticInputs):
    """`algorithm = "trpo"`. Needs `lora`: its vectors are as long as what it trains."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lora is None:
            raise ConfigError("trpo needs lora: it keeps half a dozen vectors as long as what it trains")
        if self.base_dtype != "float32" or self.shard or self.recompute_layers:
            raise ConfigError(
                "trpo takes gradients of gradients, in float32 and of whole layers; leave base_dtype, shard and "
                "recompute_layers out"
            )


@dataclass(frozen=True, kw_only=True)
class DPOInputs(TrainingInputs):
    """`algorithm = "dpo"`."""

    model: ModelInput
    """The supervised model: the policy starts from it, and it is the reference."""
    comparisons: DataInput
    """`@stage` that made them, a file or a data set."""
    lora: LoRA | None = None
    """Train an adapter of this shape on the frozen base; without it all weights beside a frozen copy."""


@dataclass(frozen=True, kw_only=True)
class PairInputs(TrainingInputs):
    """`algorithm = "orpo"` and `algorithm = "simpo"`, which need no reference."""

    model: ModelInput
    """Model to start from: the supervised one, or for "orpo" a base model, which learns to answer meanwhile."""
    comparisons: DataInput
    """`@stage` that made them, a file or a data set."""


@dataclass(frozen=True, kw_only=True)
class KTOInputs(TrainingInputs):
    """`algorithm = "kto"`."""

    model: ModelInput
    """The supervised model: the policy starts from it, and it is the reference."""
    preferences: DataInput
    """Unpaired preferences, an answer and its label to a row; or comparisons, whose sides are good and bad answers."""
    lora: LoRA | None = None
    """Train an adapter of this shape on the frozen base; without it all weights beside a frozen copy."""


@dataclass(frozen=True, kw_only=True)
class ILQLInputs(TrainingInputs):
    """`algorithm = "ilql"`."""

    model: ModelInput
    """The language model that learns to speak by value."""
    completions: DataInput | None = None
    """`@stage` that generated them, or a file of answers: what `reward` scores."""
    reward: RewardInput | None = None
    """What scores the completions."""
    comparisons: DataInput | None = None
    """In their place `@stage` that made comparisons, a file or a data set: chosen answers score p, rejected 1 - p."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.completions is None) == (self.comparisons is None):
            raise ConfigError("ilql learns from completions with a reward, or from comparisons; give one of the two")
        if (self.completions is None) != (self.reward is None):
            raise ConfigError("completions and reward go together: give both, or comparisons alone")
