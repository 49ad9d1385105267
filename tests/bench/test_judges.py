from __future__ import annotations

import json
import sys
from collections import Counter
from itertools import combinations

import judges as bench
import numpy as np
import pytest
from scipy.special import logit


def test_a_judge_without_noise_says_the_true_differences_in_both_orders() -> None:
    said, value = bench.simulate(bench.Judge("exact", 3.4, 0.0), size=4, people=2, seed=0)
    assert set(Counter(one.item for one in said).values()) == {3}
    (judged, *_) = (one for one in said if one.rater == "judge")
    for a, b in combinations(judged.completions, 2):
        assert logit(judged.values[f"{a}>{b}"]) == pytest.approx(3.4 * (value[a] - value[b]))
        assert judged.values[f"{a}>{b}"] + judged.values[f"{b}>{a}"] == pytest.approx(1)
    best = max(judged.completions, key=value.__getitem__)
    assert judged.ranks[judged.completions.index(best)] == 1


def test_nothing_is_lost_but_the_entropy_where_p_is_one_half_of_equal_answers() -> None:
    said, value = bench.simulate(bench.Judge("knows nothing", 0.0, 1.0), size=2, people=0, seed=0)
    assert bench.loss(said, dict.fromkeys(value, 0.0)) == pytest.approx(np.log(2), abs=1e-4)


def test_every_judge_is_measured_in_every_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "NUM_ITEMS", 30)
    monkeypatch.setattr(sys, "argv", ["judges.py", "--datasets", "2", "--json"])
    bench.main()
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert len(rows) == len(bench.JUDGES) * 4
    for row in rows:
        assert row["difference"]["mean"] == pytest.approx(row["probabilities"] - row["order"])
