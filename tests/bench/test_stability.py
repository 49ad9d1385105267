from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import stability

HEALTHY = {0: -0.3, 10: 0.9, 20: 0.7}
"""Of 1.2 that were gained .2, a sixth, are lost."""


def verdict(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, gain: float, curve: dict[int, float], pairs: float, ended: float
) -> dict[str, Any]:
    """Of a run with these numbers, on a base with .4 different word pairs; curve: true utility on dev prompts."""
    report = {
        "difference": {"true_utility": {"mean": gain}},
        "before": {"distinct_2": 0.4},
        "after": {"distinct_2": pairs, "eos_share": ended},
        "kl": {"mean": 2.5},
    }
    (folder / "evaluate_ppo").mkdir()
    (folder / "evaluate_ppo" / "report.json").write_text(json.dumps(report))
    monkeypatch.setattr(stability, "utility_curve", {folder / "ppo": curve}.get)
    return stability.verdict(folder, "ppo")


def test_the_numbers_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = verdict(tmp_path, monkeypatch, gain=1.0, curve=HEALTHY, pairs=0.3, ended=0.9)
    assert found == {
        "gain": 1.0,
        "gain_lost": pytest.approx(1 / 6),
        "distinct_2": pytest.approx(3 / 4),
        "eos_share": 0.9,
        "kl": 2.5,
        "collapsed": [],
    }


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"gain": -0.01}, "ends below the base"),
        ({"curve": {0: -0.3, 10: 0.9, 20: 0.2}}, "lost its gain"),  # .7 of 1.2
        ({"curve": {0: -0.3, 10: -0.4}}, "lost its gain"),  # there never was one
        ({"pairs": 0.19}, "says the same"),
        ({"ended": 0.79}, "does not end"),
    ],
)
def test_each_reason_alone(
    change: dict[str, Any], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers: dict[str, Any] = {"gain": 1.0, "curve": HEALTHY, "pairs": 0.3, "ended": 0.9}
    assert verdict(tmp_path, monkeypatch, **numbers | change)["collapsed"] == [reason]
