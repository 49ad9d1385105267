from __future__ import annotations

import json
from pathlib import Path

import pytest
from compared import between, ranges


def test_ranges_of_a_metric_over_seeds(tmp_path: Path) -> None:
    """Two seeds whose loss at step k of 20 is k and k + 100. A tenth of the way are steps 2 and 3; the last fifth are
    17 to 20 of both, of whose eight values a twentieth, .35 of a place, is left out on either side. Evaluations and
    the machine's seconds are not told."""
    for seed in range(2):
        folder = tmp_path / "recipe" / f"seed-{seed}" / "ppo"
        folder.mkdir(parents=True)
        steps = [{"step": k, "kind": "train", "loss": k + 100.0 * seed, "seconds": 1.0} for k in range(1, 21)]
        evaluation = {"step": 0, "kind": "evaluation", "loss": 999.0}
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [evaluation, *steps]))
    assert ranges(tmp_path, "ppo") == {"loss": ((1, 101), (2, 103), (pytest.approx(17.35), pytest.approx(119.65)))}


def test_a_range_is_told_by_two_digits() -> None:
    assert between((-0.0123, 0.456)) == "−0.012 to 0.46"
    assert between((1.0, 1.0)) == "1"
    assert between((2e-7, -3e-6)) == "0"
