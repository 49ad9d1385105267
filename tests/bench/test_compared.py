from __future__ import annotations

import json
from pathlib import Path

import pytest
from compared import between, measured, ranges, spoken


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


def test_a_page_tells_a_loss_as_a_loss(tmp_path: Path) -> None:
    """Of whatever seeds there are, and with an interval that holds 0 no rise is claimed."""
    folder = tmp_path / "recipe" / "seed-3" / "grpo"
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text('{"step": 1, "kind": "train", "loss": 0.5}\n' * 10)
    row = {
        "seeds": [3, 4, 5, 6],
        "before": {"true_utility": -0.29},
        "difference": {"true_utility": {"mean": -0.62, "interval": [-1.34, 0.1]}},
        "kl": {"mean": 5.2, "interval": [5.0, 5.4]},
    }
    head, gain, table = measured({"grpo": "GRPO"}, {"grpo": row}, tmp_path)
    assert "demo_learners.toml`, seeds 3 to 6, 95 % intervals" in head
    assert gain == "GRPO changes true utility by −0.62 [−1.34, 0.10] from −0.29, at a KL of 5.2 nats."
    assert table.splitlines()[-1] == "| `loss` | 0.5 | 0.5 | 0.5 |"


def test_seeds_are_told_as_they_are() -> None:
    assert [spoken(seeds) for seeds in ([0], [0, 1], [0, 1, 2], [1, 2, 4])] == [
        "seed 0",
        "seeds 0, 1",
        "seeds 0 to 2",
        "seeds 1, 2, 4",
    ]
