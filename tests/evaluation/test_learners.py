"""Learners side by side: intervals worked by hand, one seed, curves, and what cannot be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tuneful.errors import DataError
from tuneful.evaluation.intervals import MeasuredJSON, mean_over_seeds
from tuneful.evaluation.learners import Learned, Point, compare_learners
from tuneful.evaluation.report import write_report

T_OF_2 = 4.30265
"""Student's t with 2 degrees of freedom, 97.5 %: any table."""


def of(mean: float) -> MeasuredJSON:
    return {"mean": mean, "interval": [mean - 0.1, mean + 0.1], "n": 50}


def learned(learner: str, seed: int, gain: float, **more: Any) -> Learned:
    return Learned(
        learner,
        "ppo",
        seed,
        before={"utility": of(-0.3), "length": of(20.0)},
        difference={"utility": of(gain), "length": of(2.0)},
        **{"kl": 2.0, "samples": 640, "seconds": 30.0} | more,
    )


def test_the_interval_over_seeds_is_students() -> None:
    # Mean .2, deviations -.1, 0, .1: s = .1, so t s / sqrt 3 = 4.30265 x .1 / 1.73205 = .248412.
    found = mean_over_seeds([0.1, 0.2, 0.3])
    assert found.mean == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.2 - 0.248412, 0.2 + 0.248412), abs=1e-5)
    assert found.n == 3


@pytest.mark.parametrize(("values", "told"), [([0.1], "at least 2 seeds"), ([0.1, float("nan")], "finite")])
def test_seeds_that_say_nothing_are_refused(values: list[float], told: str) -> None:
    with pytest.raises(DataError, match=told):
        mean_over_seeds(values)


def test_learners_stand_by_their_gain() -> None:
    runs = [learned("weak", s, g) for s, g in enumerate((0.1, 0.2, 0.3))]
    runs += [learned("strong", s, g) for s, g in enumerate((0.9, 1.0, 1.1))]
    strong, weak = compare_learners(runs, "utility")
    assert (strong["learner"], weak["learner"]) == ("strong", "weak")
    reach = T_OF_2 * 0.1 / 3**0.5
    assert strong["difference"]["utility"]["mean"] == pytest.approx(1.0)
    assert strong["difference"]["utility"]["interval"] == pytest.approx([1 - reach, 1 + reach], abs=1e-4)
    assert (strong["gained"], weak["gained"]) == (True, False)  # .2 - .248 is below 0
    assert strong["before"] == pytest.approx({"utility": -0.3, "length": 20.0})
    assert strong["seeds"] == [0, 1, 2]
    assert strong["kl"]["mean"] == 2.0


def test_a_seed_that_lost_is_no_gain_whatever_the_mean() -> None:
    runs = [learned("one", s, g) for s, g in enumerate([1.0] * 20 + [-0.01])]
    (row,) = compare_learners(runs, "utility")
    assert row["difference"]["utility"]["interval"][0] > 0
    assert not row["gained"]


def test_one_seed_has_the_interval_over_prompts() -> None:
    (row,) = compare_learners([learned("one", 3, 0.5, memory=None)], "utility")
    assert row["difference"]["utility"] == of(0.5)
    assert (row["kl"], row["memory"]) == (2.0, None)


def test_curves_are_averaged_step_by_step() -> None:
    first = (Point(0, 0.0, 0.0, 0, 0.0), Point(10, 1.0, 2.0, 640, 8.0))
    second = (Point(0, 0.2, 0.0, 0, 0.0), Point(10, 2.0, 4.0, 640, 10.0), Point(20, 3.0, 5.0, 1280, 20.0))
    (row,) = compare_learners([learned("a", 0, 0.1, curve=first), learned("a", 1, 0.2, curve=second)], "utility")
    assert row["curve"] == [
        {"step": 0, "measure": pytest.approx(0.1), "kl": 0.0, "samples": 0, "seconds": 0.0},
        {"step": 10, "measure": 1.5, "kl": 3.0, "samples": 640, "seconds": 9.0},
        {"step": 20, "measure": 3.0, "kl": 5.0, "samples": 1280, "seconds": 20.0},
    ]


def test_memory_that_one_seed_does_not_know_is_not_averaged() -> None:
    runs = [learned("a", 0, 0.1, memory=2**20), learned("a", 1, 0.2, memory=None)]
    assert compare_learners(runs, "utility")[0]["memory"] is None


def test_a_seed_twice_or_a_measure_that_is_not_there() -> None:
    with pytest.raises(DataError, match=r"a: a seed is there twice, of \[1, 1\]"):
        compare_learners([learned("a", 1, 0.1), learned("a", 1, 0.2)], "utility")
    with pytest.raises(DataError, match='nothing called "utilty" was measured; did you mean "utility"'):
        compare_learners([learned("a", 1, 0.1)], "utilty")


def test_the_page_draws_each_cost_and_marks_rows_by_number(tmp_path: Path) -> None:
    curve = (Point(0, -0.3, 0.0, 0, 0.0), Point(10, 0.4, 2.0, 640, 8.0))
    runs = [learned(name, s, 0.5 + s / 10, curve=curve) for name in ("<one>", "two") for s in (0, 1, 2)]
    report = {"measure": "utility", "learners": compare_learners(runs, "utility")}
    write_report(tmp_path / "report.html", report)
    page = (tmp_path / "report.html").read_text()
    for title in ("Utility against KL", "Utility against samples", "Utility against seconds"):
        assert page.count(f"<title>{title}</title>") == 1
    assert "&lt;one&gt;" in page
    assert "<one>" not in page
    assert "those of a single seed" not in page


def test_learners_without_samples_of_their_own_are_drawn_too(tmp_path: Path) -> None:
    report = {"measure": "utility", "learners": compare_learners([learned("dpo", 0, 0.5, samples=0)], "utility")}
    write_report(tmp_path / "report.html", report)
    page = (tmp_path / "report.html").read_text()
    assert "<title>Utility against samples</title>" in page
    assert "those of a single seed are over prompts" in page
