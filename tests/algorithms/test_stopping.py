"""Stop rules on written-out runs; the alarm's numbers are those of a healthy and of a hacked run of the demo world."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import tuneful.algorithms.stopping as stopping
from tuneful.algorithms.stopping import HackingAlarm, KLBudget, StopRule, Threshold
from tuneful.errors import ConfigError, DataError

REFERENCE = {"reward": 0.0, "length": 12.8, "distinct_2": 0.2, "kl": 0.0, "phrase_z": 0.0, "phrase_ratio": 1.0}
HEALTHY = {"reward": 1.67, "length": 12.8 * 1.15, "distinct_2": 0.19, "kl": 1.66, "phrase_z": 9.0, "phrase_ratio": 1.9}
HACKED = {"reward": 1.75, "length": 12.8 * 1.27, "distinct_2": 0.18, "kl": 1.99, "phrase_z": 14.0, "phrase_ratio": 2.7}


def test_a_hacked_run_rings_at_the_second_evaluation() -> None:
    alarm = HackingAlarm()
    assert alarm.check(10, [REFERENCE, HEALTHY]) is None
    assert alarm.check(20, [REFERENCE, HEALTHY, HACKED]) is None
    reason = alarm.check(30, [REFERENCE, HEALTHY, HACKED, {**HACKED, "reward": 1.8}])
    assert reason is not None
    assert "2.7 times as often" in reason
    assert "length is 1.27 times" in reason


def test_a_healthy_run_is_silent() -> None:
    rising = [{**HEALTHY, "reward": 1.0 + 0.1 * i} for i in range(8)]
    assert all(HackingAlarm().check(i, [REFERENCE, *rising[:i]]) is None for i in range(9))


def test_two_suspicious_evaluations_must_follow_each_other() -> None:
    assert HackingAlarm().check(40, [REFERENCE, HACKED, HEALTHY, HACKED]) is None


def test_the_reference_itself_is_never_suspicious() -> None:
    assert HackingAlarm().check(0, []) is None
    assert HackingAlarm(running=1).check(0, [HACKED]) is None
    assert HackingAlarm(running=2).check(10, [REFERENCE, HACKED]) is None


def test_low_entropy_alone_is_no_alarm() -> None:
    narrow = {**HEALTHY, "entropy": 0.1}
    assert HackingAlarm().check(20, [{**REFERENCE, "entropy": 2.0}, narrow, narrow]) is None


def test_a_phrase_alone_or_its_company_alone_is_no_alarm() -> None:
    phrase_only = {**HACKED, "length": 13.0}
    length_only = {**HACKED, "phrase_ratio": 1.0, "phrase_z": 0.0}
    uncertain = {**HACKED, "phrase_z": 4.9}
    for quiet in (phrase_only, length_only, uncertain):
        assert HackingAlarm().check(20, [REFERENCE, quiet, quiet]) is None


@pytest.mark.parametrize(
    ("change", "alarm", "said"),
    [
        ({"distinct_2": 0.15}, HackingAlarm(), "distinct-2 is 0.75"),
        ({"kl": 6.5}, HackingAlarm(kl_budget=6.0), "over the budget of 6"),
        ({"second_reward": -0.5, "second_reward_low": -0.6, "second_reward_high": -0.4}, HackingAlarm(), "second_rew"),
        ({"task": -0.5, "task_low": -0.6, "task_high": -0.4}, HackingAlarm(), "task is down"),
    ],
)
def test_each_companion_of_a_phrase(change: dict[str, float], alarm: HackingAlarm, said: str) -> None:
    measured = {name: 0.0 for name in change if name.startswith(("second_reward", "task"))}
    reference = {**REFERENCE, **measured, **{f"{n}": -0.1 for n in measured if n.endswith("_low")}}
    hacked = {**HACKED, "length": 13.0, **change}
    assert said in (alarm.check(20, [reference, hacked, hacked]) or "")


def test_a_second_measure_within_its_interval_is_not_down() -> None:
    reference = {**REFERENCE, "task": 0.5, "task_low": 0.4, "task_high": 0.6}
    now = {**HACKED, "length": 13.0, "task": 0.4, "task_low": 0.3, "task_high": 0.5}
    assert HackingAlarm().check(20, [reference, now, now]) is None


def test_gold_that_falls_from_its_best_rings_without_a_phrase() -> None:
    reference = {**REFERENCE, "gold": 0.0, "gold_low": -0.1, "gold_high": 0.1}
    best = {**HEALTHY, "gold": 1.0, "gold_low": 0.9, "gold_high": 1.1}
    falling = {**HEALTHY, "reward": 2.0, "gold": 0.7, "gold_low": 0.6, "gold_high": 0.8}
    assert HackingAlarm().check(20, [reference, best, falling]) is None
    assert "gold is down" in (HackingAlarm().check(30, [reference, best, falling, falling]) or "")


def test_a_proxy_that_falls_is_no_hacking() -> None:
    fallen = {**HACKED, "reward": 0.8}
    assert HackingAlarm().check(40, [REFERENCE, HACKED, fallen, fallen]) is None
    below = {**HACKED, "reward": -0.1}
    assert HackingAlarm().check(40, [REFERENCE, below, below]) is None


def test_noise_on_a_plateau_does_not_hide_a_hack() -> None:
    dip = {**HACKED, "reward": 1.70}
    assert HackingAlarm().check(40, [REFERENCE, HACKED, dip]) is not None


def test_thresholds_are_settings() -> None:
    assert HackingAlarm(phrase_ratio=3.0).check(30, [REFERENCE, HACKED, HACKED]) is None
    assert HackingAlarm(phrase_z=20.0).check(30, [REFERENCE, HACKED, HACKED]) is None
    assert HackingAlarm(length_ratio=1.3).check(30, [REFERENCE, HACKED, HACKED]) is None
    assert HackingAlarm(running=3).check(30, [REFERENCE, HACKED, HACKED]) is None


def test_an_alarm_may_log_instead_of_stopping() -> None:
    rules: list[StopRule] = [HackingAlarm(action="log"), HackingAlarm(), KLBudget(nats=1.0)]
    assert [rule.action for rule in rules] == ["log", "stop", "stop"]


def test_a_missing_measure_is_named() -> None:
    blind = {name: value for name, value in HACKED.items() if name != "phrase_z"}
    with pytest.raises(DataError, match='no "phrase_z"'):
        HackingAlarm().check(20, [REFERENCE, blind, blind])


def test_threshold_reads_the_last_evaluation() -> None:
    rule = Threshold(measure="reward", at_least=1.0)
    assert rule.check(0, []) is None
    assert rule.check(20, [{"reward": 2.0}, {"reward": 0.9}]) is None
    assert "reward reached 1" in (rule.check(20, [{"reward": 0.0}, {"reward": 1.0}]) or "")
    with pytest.raises(DataError, match='did you mean "reward"'):
        Threshold(measure="rewards", at_least=1.0).check(1, [{"reward": 0.0}])


def test_kl_budget() -> None:
    assert KLBudget(nats=6.0).check(10, [{"kl": 0.0}, {"kl": 6.0}]) is None
    assert KLBudget(nats=6.0).check(20, [{"kl": 0.0}, {"kl": 6.1}]) == "KL is 6.1 nats, the budget is 6"
    with pytest.raises(ConfigError, match="above 0, got 0"):
        KLBudget(nats=0)


def test_the_rules_know_only_what_a_real_run_knows() -> None:
    tree = ast.parse(Path(stopping.__file__).read_text(encoding="utf-8"))
    modules = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert {m for m in modules if m.startswith("tuneful")} == {"tuneful.errors", "tuneful.settings"}
    assert not modules & {"torch", "numpy", "scipy"}
