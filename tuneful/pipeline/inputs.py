"""What each stage of a recipe takes in. An input is a path, a data set's name, `world:thing`, or `@stage`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass
from typing import Annotated, Any, Literal, get_args, get_type_hints
from urllib.parse import urlsplit

from tuneful.algorithms.stopping import HackingAlarm
from tuneful.data.batching import TOKENS_PER_PASS
from tuneful.engines.remote import refuse_no_server
from tuneful.errors import ConfigError, did_you_mean
from tuneful.models.adapters import LoRA
from tuneful.models.loading import Dtype
from tuneful.models.roles import ValueKind, check_roles
from tuneful.rewards.tables import RewardInput, part_names
from tuneful.settings import require_above, require_at_least

Kind = Literal["models", "data", "prompts", "tests", "judgments", "words", "rewards", "raters", "measures"]
"""What an input can name."""

ModelInput = Annotated[str, "models"]
DataInput = Annotated[str, "data"]
PromptsInput = Annotated[str, "data", "prompts"]
TestInput = Annotated[str, "data", "tests"]
JudgmentsInput = Annotated[str, "data", "judgments"]
RatersInput = Annotated[str, "raters"]
MeasureInput = Annotated[str, "measures"]

ON_POLICY = ("reinforce", "rloo", "grpo", "a2c", "ppo", "nlpo", "trpo", "raft", "dqn")
"""The algorithms that train on the policy's own answers."""

DEV_MEASURES = ("reward", "kl", "eos_share", "length", "distinct_2", "phrase_z", "phrase_ratio")
"""What is measured on dev prompts while a policy trains."""

SECOND_MEASURES = ("second_reward", "second_reward_low", "second_reward_high")
"""What is measured there beside it when there is a second reward."""


MAKES: Mapping[str, tuple[str, ...]] = {
    "generate": ("completions",),
    "best_of_n": ("completions",),
    "label": ("judgments",),
    "collect": ("judgments", "completions"),
    "consensus": ("comparisons",),
    "sft": ("a model",),
    "reward": ("a reward model",),
    **dict.fromkeys(ON_POLICY, ("a model",)),
    "dpo": ("a model",),
    "orpo": ("a model",),
    "simpo": ("a model",),
    "kto": ("a model",),
    "ilql": ("a model",),
}
"""What each kind of stage leaves for later ones."""

TAKES: Mapping[str, str] = {
    "completions": "completions",
    "judgments": "judgments",
    "rankings": "judgments",
    "comparisons": "comparisons",
    "demonstrations": "comparisons",
    "preferences": "comparisons",
    "pretraining": "comparisons",
    "test": "comparisons",
    "model": "a model",
    "normalise_model": "a model",
    "reference": "a model",
    "before": "a model",
    "after": "a model",
    "reward": "a reward model",
    "rewards": "a reward model",
    "second_reward": "a reward model",
    "toxicity": "a reward model",
    "value_from": "a reward model",
}
"""What each setting that may name a stage takes from it; a reward stage may also start from a reward model."""


JUDGED: tuple[Kind, ...] = ("prompts", "tests")
"""What names data whose dev and test splits a stage may evaluate on."""


def named(given: Any, kind: Kind) -> list[str]:
    """What the inputs of a stage that are marked as `kind` name, in the order of its fields and of tables in them."""
    return [text for _, marks, text in marked(given) if kind in marks]


def marked(given: Any) -> Iterator[tuple[str, set[Any], str]]:
    """(setting, marks, text) of all texts in the inputs of a stage that name something, those in tables included."""
    for name, hint in get_type_hints(type(given), include_extras=True).items():
        value, marks = getattr(given, name), _marks(hint)
        for inner in value if isinstance(value, tuple) else (value,):
            if is_dataclass(inner):
                yield from ((name, marks_inside, text) for _, marks_inside, text in marked(inner))
            elif isinstance(inner, str) and marks:
                yield name, marks, inner


def _marks(hint: Any) -> set[Any]:
    """The marks of an annotated type, also inside `X | None` and `tuple[X, ...]`."""
    return {*getattr(hint, "__metadata__", ()), *(mark for inner in get_args(hint) for mark in _marks(inner))}


@dataclass(frozen=True, kw_only=True)
class SamplingInputs:
    """How completions are drawn."""

    num_samples: int = 4
    """Completions of each prompt, by each model."""
    max_new_tokens: int = 128
    """Longest completion, the end token included."""
    max_prompt_tokens: int | None = None
    """Longer prompts lose their beginning; None: they are refused when they do not fit the context."""
    temperature: float = 1.0
    """Sampling temperature; 0 takes the most likely token."""
    dtype: Dtype = "float32"
    """Precision of the models that answer; bfloat16 halves their memory, nf4 takes about a third of that."""

    def __post_init__(self) -> None:
        require_at_least(1, self, "", "num_samples", "max_new_tokens", "max_prompt_tokens")
        require_at_least(0, self, "", "temperature", hint="0 takes the most likely token")


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


@dataclass(frozen=True, kw_only=True)
class GenerateInputs(SamplingInputs):
    """`do = "generate"`: completions of prompts."""

    model: ModelInput
    """Model directory, hub id, `world:model` or `@stage`."""
    prompts: PromptsInput
    """Prompt file, data set or `world:prompts`."""
    split: Literal["reward", "rl", "dev", "test"] = "reward"
    """Which split of the prompts."""
    offset: int = 0
    """This many prompts of the split are passed over, such as those of an earlier round."""
    limit: int | None = None
    """At most this many prompts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(0, self, "", "offset")
        require_at_least(1, self, "", "limit")


@dataclass(frozen=True, kw_only=True)
class LabelInputs:
    """`do = "label"`: rankings of completions."""

    completions: DataInput
    """`@stage` that generated them, or a completions file."""
    raters: RatersInput
    """Who ranks them: `world:raters`."""
    raters_per_item: int = 3
    """Rankings of each prompt's completions."""

    def __post_init__(self) -> None:
        require_at_least(1, self, "", "raters_per_item")


@dataclass(frozen=True, kw_only=True)
class CollectInputs:
    """`do = "collect"`: what was judged in a store."""

    store: str
    """A SQLite file, or `postgresql://…` without a password, which belongs into `PGPASSWORD`."""
    project: str
    """Name or id of a project of the store."""
    audience: str | None = None
    """Only what people say who are of this group by their own word; it needs five of them. None: what all say."""
    fewest: int = 1
    """Judgments that there have to be; with fewer the run stops, to be started again later."""

    def __post_init__(self) -> None:
        require_at_least(1, self, "", "fewest")
        if "://" in self.store and urlsplit(self.store).password is not None:
            raise ConfigError("store: the URL holds a password, which run.json would keep; set PGPASSWORD instead")


@dataclass(frozen=True, kw_only=True)
class People(CollectInputs):
    """Where people have compared answers of the models that an `evaluate` stage compares.

    `fewest` counts the judgments that compare the two on test prompts.
    """

    before: str | None = None
    """What the project calls the model before; without it as the stage does."""
    after: str | None = None
    """What the project calls the model after; without it as the stage does."""


@dataclass(frozen=True, kw_only=True)
class ConsensusInputs:
    """`do = "consensus"`: judgments to comparisons."""

    judgments: JudgmentsInput | tuple[JudgmentsInput, ...]
    """`@stage` that labeled or collected, or a judgments file; or several of them."""
    completions: DataInput | tuple[DataInput, ...]
    """`@stage` that generated or collected what was judged, or a completions file; or several of them."""


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


@dataclass(frozen=True, kw_only=True)
class OnPolicyInputs(TrainingInputs):
    """`algorithm = "reinforce"`, `"rloo"`, `"grpo"`, `"raft"` or `"dqn"`."""

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


@dataclass(frozen=True, kw_only=True)
class NLPOInputs(ActorCriticInputs):
    """`algorithm = "nlpo"`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sampler is not None:
            raise ConfigError("sampler: the mask policy of nlpo reads along with the model, here; leave sampler out")
        if self.shard:
            raise ConfigError("shard: the mask policy of nlpo is a copy that is not split; leave shard out")


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


@dataclass(frozen=True, kw_only=True)
class EvaluateInputs(SamplingInputs):
    """`do = "evaluate"`: two models side by side on test prompts."""

    before: ModelInput
    """The model compared with."""
    after: ModelInput
    """The model that was tuned."""
    prompts: PromptsInput
    """Prompts to answer (split test)."""
    limit: int | None = None
    """At most this many prompts."""
    reward: RewardInput | None = None
    """A reward to measure both with."""
    second_reward: RewardInput | None = None
    """Another one, that the tuned model was not trained with."""
    toxicity: RewardInput | None = None
    """What measures toxicity: a classifier or a list of words, and not the reward; without it, it is not measured."""
    measures: tuple[MeasureInput, ...] = ()
    """Further measures of a completion: `world:measure`."""
    people: People | None = None
    """A project in which people compared answers of both models: which they prefer, and whether rewards agree."""
    judge: str | None = None
    """The measure whose higher value wins, or `people`; without it the reward, and people where there is none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(2, self, "", "limit")
        if self.toxicity is not None and self.toxicity == self.reward:
            raise ConfigError("toxicity is measured by the reward itself, which it is to check; name another measure")
        own = [name for name in ("reward", "second_reward", "toxicity") if getattr(self, name) is not None]
        known = ["length", *own, *(m.partition(":")[2] for m in self.measures)]
        if self.toxicity is not None and known.count("toxicity") > 1:
            raise ConfigError("two measures are called toxicity; leave out the setting or the one of the world")
        judge, known = self.win_judge, [*known, *(["people"] if self.people else [])]
        if judge is not None and judge not in known:
            raise ConfigError(f'judge: this stage measures nothing called "{judge}"{did_you_mean(judge, known)}')

    @property
    def win_judge(self) -> str | None:
        """Whose win rate the report leads with: a measure's name, "people", or nobody's."""
        if self.judge:
            return self.judge.rpartition(":")[2]
        return "reward" if self.reward else "people" if self.people else None


@dataclass(frozen=True, kw_only=True)
class BestOfNInputs(SamplingInputs):
    """`do = "best_of_n"`: what is gained by keeping the best of several answers."""

    model: ModelInput
    """Model that answers."""
    prompts: PromptsInput
    """Prompts to answer."""
    reward: RewardInput
    """What says which answer is best."""
    num_samples: int = 16
    """Completions of each prompt: the largest n."""
    split: Literal["reward", "rl", "dev", "test"] = "test"
    """Which split of the prompts."""
    limit: int | None = None
    """At most this many prompts."""
    second_reward: RewardInput | None = None
    """Another reward, which chooses nothing."""
    toxicity: RewardInput | None = None
    """What measures toxicity, and not the reward; without it, it is not measured."""
    measures: tuple[MeasureInput, ...] = ()
    """Further measures of a completion: `world:measure`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(2, self, "", "num_samples", "limit")
        require_above(0, self, "", "temperature", hint="greedy answers are all the same")
        if self.toxicity is not None and self.toxicity == self.reward:
            raise ConfigError("toxicity is measured by the reward itself, which it is to check; name another measure")


@dataclass(frozen=True, kw_only=True)
class AccuracyInputs:
    """`do = "accuracy"`: how often a reward or a language model prefers what people prefer."""

    comparisons: TestInput
    """Held-out comparisons: a file or data set; of one that is not in `held_out`, the test split."""
    reward: RewardInput | None = None
    """A reward that scores both sides."""
    model: ModelInput | None = None
    """A language model whose log-probabilities of both sides are compared."""

    def __post_init__(self) -> None:
        if self.reward is None and self.model is None:
            raise ConfigError("accuracy of what? name a reward, a model, or both")


@dataclass(frozen=True, kw_only=True)
class AudiencesInputs:
    """`do = "audiences"`: how often the reward of each audience prefers what each audience prefers."""

    rewards: tuple[Annotated[str, "rewards"], ...]
    """`@stage` or directory of each audience's reward model."""
    comparisons: tuple[TestInput, ...]
    """Held-out comparisons of each audience, as `do = "accuracy"` takes them."""

    def __post_init__(self) -> None:
        for name in ("rewards", "comparisons"):
            given = getattr(self, name)
            if not given or len(set(given)) < len(given):
                raise ConfigError(f"{name} = {list(given)}: name one or more, each once")
