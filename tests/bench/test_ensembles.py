from __future__ import annotations

from pathlib import Path

import pytest
from demo_learners import keep
from ensembles import compared, turned

from tuneful.data.formats import read_comparisons
from tuneful.data.jsonl import write_jsonl
from tuneful.data.preferences import comparison_row
from tuneful.records import Comparison, Prompt


def test_a_quarter_of_the_pairs_is_turned_round(tmp_path: Path) -> None:
    """Of 400 pairs 100 in the mean, with a standard deviation of 8.7; labels become hard, the order stays."""
    pairs = [Comparison(Prompt(f"p{k}"), f"good {k}", f"bad {k}", p=0.8, weight=2.0) for k in range(400)]
    write_jsonl(tmp_path / "pairs.jsonl", map(comparison_row, pairs))

    def found(seed: int) -> list[Comparison]:
        return [*read_comparisons(turned(tmp_path / "pairs.jsonl", tmp_path / "turned.jsonl", seed))]

    rows = found(0)
    assert [row.prompt for row in rows] == [pair.prompt for pair in pairs]
    assert {(row.p, row.weight) for row in rows} == {(1.0, 1.0)}
    sides = [(row.chosen, row.rejected) == (f"bad {k}", f"good {k}") for k, row in enumerate(rows)]
    assert all({row.chosen, row.rejected} == {f"bad {k}", f"good {k}"} for k, row in enumerate(rows))
    assert sum(sides) == pytest.approx(100, abs=35)
    assert found(0) == rows
    assert found(1) != rows


def test_each_reward_is_held_against_the_single_model_of_its_seed(tmp_path: Path) -> None:
    """Differences .1 and .3: mean .2, and t of one degree of freedom, 12.7062, times .1414 / sqrt 2 = .1."""
    results = tmp_path / "ensembles.jsonl"
    gains = {"one": (1.0, 0.5), "mean": (1.1, 0.8), "worst": (1.0, 0.5), "mean - variance": (0.0, 0.0)}
    for name, of_seeds in gains.items():
        for seed, gain in enumerate(of_seeds):
            keep(results, {"case": "noise", "seed": seed, "reward": name, "true_utility": gain})
            keep(results, {"case": "flattery", "seed": seed, "reward": name, "true_utility": 9.0})
    found = compared(results, "noise", 2)
    assert found.keys() == {"mean", "worst", "mean - variance"}
    assert found["mean"]["gain"] == pytest.approx(0.95)
    assert found["mean"]["difference"]["mean"] == pytest.approx(0.2)
    assert found["mean"]["difference"]["interval"] == pytest.approx([0.2 - 1.27062, 0.2 + 1.27062], abs=1e-5)
    assert found["worst"]["difference"]["mean"] == 0
    assert found["mean - variance"]["difference"]["mean"] == pytest.approx(-0.75)
