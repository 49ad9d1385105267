"""What each stage of a recipe that trains nothing takes in, and what stages leave for one another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal
from urllib.parse import urlsplit

from tuneful.errors import ConfigError, did_you_mean
from tuneful.models.loading import Dtype
from tuneful.pipeline.learner_inputs import ON_POLICY
from tuneful.pipeline.marks import (
    DataInput,
    JudgmentsInput,
    MeasureInput,
    ModelInput,
    PromptsInput,
    RatersInput,
    TestInput,
)
from tuneful.rewards.tables import RewardInput
from tuneful.settings import require_above, require_at_least

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
        judge, known = self.win_judge, [*measured(self), *(["people"] if self.people else [])]
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
        measured(self)


def measured(given: EvaluateInputs | BestOfNInputs) -> list[str]:
    """Names of what a stage measures. Raises ConfigError where toxicity is the reward, or two have one name."""
    if given.toxicity is not None and given.toxicity == given.reward:
        raise ConfigError("toxicity is measured by the reward itself, which it is to check; name another measure")
    own = [name for name in ("reward", "second_reward", "toxicity") if getattr(given, name) is not None]
    names = ["length", *own, *(measure.partition(":")[2] for measure in given.measures)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        way = "leave out the setting or the one of the world" if twice in own else "leave one out of `measures`"
        raise ConfigError(f"two measures are called {twice}; {way}")
    return names


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
