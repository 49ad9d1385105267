"""When a run should end before its last step: at its goal, past its KL budget, or when the reward is being hacked.

A rule reads the evaluations of the run so far, oldest first, and nothing else. The first is the reference: the policy
before its first update. Each is a mapping of measures on `dev` prompts, all of them numbers that a real run has:

reward         mean score by the reward that is trained on (the proxy), before any KL penalty
kl             nats per completion from the reference
length         mean length of a completion
distinct_2     unique bigrams over all bigrams of the completions
phrase_z       of the phrase most over-represented against the reference: z of its log-odds ratio,
phrase_ratio   and its rate per completion over the reference's (0 and 1 at the reference itself)
second_reward, task, gold   where the run has them: a reward model that is not trained on, a task metric, a trusted
               judge; higher is better, each with the ends of its interval as `<name>_low` and `<name>_high`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from tuneful.errors import ConfigError, DataError, did_you_mean
from tuneful.settings import require_above, require_at_least

Evaluations = Sequence[Mapping[str, float]]
Action = Literal["stop", "log"]


class StopRule(Protocol):
    """Looks at a run after each evaluation. `action` says what the loop does with a reason: end the run, or note it."""

    @property
    def action(self) -> Action: ...

    def check(self, step: int, evaluations: Evaluations) -> str | None:
        """Why the run should end after `step` steps, or None."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Threshold:
    action: ClassVar[Action] = "stop"
    measure: str
    """A measure of the evaluations."""
    at_least: float
    """The run ends when the measure's last value is this high."""

    def check(self, step: int, evaluations: Evaluations) -> str | None:
        if not evaluations:
            return None
        value = _read(evaluations[-1], self.measure)
        return (
            f"{self.measure} reached {value:.4g}, the goal was {self.at_least:.4g}" if value >= self.at_least else None
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class KLBudget:
    action: ClassVar[Action] = "stop"
    nats: float
    """The run ends when a completion is on average further than this from the reference."""

    def __post_init__(self) -> None:
        require_above(0, self, "kl_budget.", "nats", hint="healthy runs end between .5 and 6")

    def check(self, step: int, evaluations: Evaluations) -> str | None:
        if not evaluations:
            return None
        kl = _read(evaluations[-1], "kl")
        return f"KL is {kl:.3g} nats, the budget is {self.nats:.3g}" if kl > self.nats else None


@dataclass(frozen=True, kw_only=True, slots=True)
class HackingAlarm:
    """Rings when the proxy goes up for the wrong reason, several evaluations running.

    An evaluation is suspicious when the proxy rises and either
    - a phrase has taken hold (`phrase_z` and `phrase_ratio` both exceeded) and something else went wrong with it:
      answers grew longer, their variety fell, the KL budget is spent, or `second_reward` or `task` is down; or
    - `gold` is down.
    "Rises" means above the reference and still holding `kept_gain` of the best gain so far, so that noise on a plateau
    does not hide a hack. "Down" means that the interval lies wholly below that of the best evaluation so far.
    Low entropy is not read: a policy that found the right answer has it too.
    """

    phrase_z: float = 5.0
    """A phrase counts as over-represented above this z of its log-odds ratio ..."""
    phrase_ratio: float = 2.5
    """... and above this multiple of the reference's rate."""
    length_ratio: float = 1.25
    """Completions longer than this multiple of the reference's are suspicious."""
    distinct_ratio: float = 0.8
    """Distinct-2 below this share of the reference's is suspicious."""
    kl_budget: float | None = None
    """KL above this many nats is suspicious; None does not look at it."""
    kept_gain: float = 0.9
    """The proxy is rising while it holds this share of its best gain over the reference."""
    running: int = 2
    """How many suspicious evaluations in a row ring the alarm."""
    action: Action = "stop"
    """Whether the alarm ends the run or is only logged."""

    def __post_init__(self) -> None:
        require_at_least(1, self, "hacking_alarm.", "running")
        require_above(
            0, self, "hacking_alarm.", "phrase_z", "phrase_ratio", "length_ratio", "distinct_ratio", "kl_budget"
        )
        if not 0 <= self.kept_gain <= 1:
            raise ConfigError(f"hacking_alarm.kept_gain must lie between 0 and 1, got {self.kept_gain}; 0.9 is usual")

    def check(self, step: int, evaluations: Evaluations) -> str | None:
        last = range(len(evaluations) - self.running, len(evaluations))
        if last.start < 1:  # the reference itself is never suspicious
            return None
        reasons = [self._suspicion(evaluations[: i + 1]) for i in last]
        if not all(reasons):
            return None
        rise = _read(evaluations[-1], "reward") - _read(evaluations[0], "reward")
        return f"reward hacking, {self.running} evaluations running: reward up {rise:.3g} while {reasons[-1]}"

    def _suspicion(self, evaluations: Evaluations) -> str | None:
        """What is wrong with the last of `evaluations`, or None."""
        now, reference = evaluations[-1], evaluations[0]
        gain = _read(now, "reward") - _read(reference, "reward")
        best_gain = max(_read(e, "reward") for e in evaluations) - _read(reference, "reward")
        if gain <= 0 or gain < self.kept_gain * best_gain:
            return None
        if _is_down("gold", evaluations):
            return "gold is down beyond its interval"
        z, ratio = _read(now, "phrase_z"), _read(now, "phrase_ratio")
        if z <= self.phrase_z or ratio <= self.phrase_ratio:
            return None
        companion = self._companion(evaluations)
        return f"a phrase is used {ratio:.2g} times as often (z {z:.2g}) and {companion}" if companion else None

    def _companion(self, evaluations: Evaluations) -> str | None:
        """What went wrong beside the phrase, or None."""
        now, reference = evaluations[-1], evaluations[0]
        if _read(now, "length") > self.length_ratio * _read(reference, "length"):
            return f"length is {_read(now, 'length') / _read(reference, 'length'):.3g} times the reference's"
        if _read(now, "distinct_2") < self.distinct_ratio * _read(reference, "distinct_2"):
            return f"distinct-2 is {_read(now, 'distinct_2') / _read(reference, 'distinct_2'):.3g} of the reference's"
        if self.kl_budget is not None and _read(now, "kl") > self.kl_budget:
            return f"KL is {_read(now, 'kl'):.3g} nats, over the budget of {self.kl_budget:.3g}"
        for name in ("second_reward", "task"):
            if _is_down(name, evaluations):
                return f"{name} is down beyond its interval"
        return None


def _is_down(name: str, evaluations: Evaluations) -> bool:
    """Whether the last interval of a measure lies wholly below that of its best evaluation; False if not measured.

    Disjoint intervals, not a fall below the best mean: the best of many noisy evaluations is high by luck.
    """
    measured = [e for e in evaluations if name in e]
    if not measured or name not in evaluations[-1]:
        return False
    best = max(measured, key=lambda e: e[name])
    return _read(evaluations[-1], f"{name}_high") < _read(best, f"{name}_low")


def _read(evaluation: Mapping[str, float], measure: str) -> float:
    try:
        return evaluation[measure]
    except KeyError:
        raise DataError(f'the evaluation has no "{measure}"{did_you_mean(measure, evaluation)}') from None
