from __future__ import annotations

import json
import sys
from pathlib import Path

import causes
import consensus as bench
import numpy as np
import pytest


def test_two_good_labelers_agree_on_72_percent_of_pairs() -> None:
    data = bench.simulate(0.0, num_items=3000, seed=0)
    order = np.sign(data.ranks[:, :, bench.SECOND] - data.ranks[:, :, bench.FIRST])
    assert np.mean(order[:, 0] == order[:, 1]) == pytest.approx(0.72, abs=0.01)


@pytest.mark.parametrize(("share", "kinds"), [(0.0, (30, 0, 0)), (0.1, (27, 2, 1)), (0.4, (18, 6, 6))])
def test_bad_labelers_are_half_random_half_inverted_with_equal_loads(share: float, kinds: tuple[int, ...]) -> None:
    data = bench.simulate(share, num_items=100, seed=0)
    assert tuple(data.kinds.count(kind) for kind in ("good", "random", "inverted")) == kinds
    assert set(np.bincount(data.rater.ravel())) == {10}
    assert all(len(set(raters)) == 3 for raters in data.rater.tolist())


def test_accuracy_counts_an_even_vote_half() -> None:
    data = bench.Data(np.array([[2.0, 1.0, 0.0, -1.0]]), np.zeros((1, 3), np.int64), np.ones((1, 3, 4), np.int64), ())
    assert data.accuracy(np.array([[1.0, 1, 1, -1, -1, 0]])) == pytest.approx(3.5 / 6)
    assert data.accuracy(np.zeros((1, 6))) == 0.5


def test_targets_are_named_as_figures_are() -> None:
    assert {target.name for target in bench.TARGETS if target.name.startswith("ECE")} == {
        f"ECE, {share} % bad" for share in (0, 10, 20, 30, 40)
    }


def test_a_quick_run_prints_every_target(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["consensus.py", "--datasets", "3", "--rankings", "600", "--json"])
    bench.main()
    *lines, last = capsys.readouterr().out.splitlines()
    told = json.loads(last)
    assert set(told["passed"]) == {target.name for target in bench.TARGETS}
    assert sum(line.endswith(("pass", "FAIL")) for line in lines) == len(bench.TARGETS)
    figures = told["figures"]
    assert figures["accuracy, 30 % bad"]["mean"] > 0.8
    assert figures["ours - majority, 30 % bad"]["interval"][0] > 0.05
    assert figures["AUC inverted"]["mean"] > 0.95


def test_causes_quickly(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [str(Path("causes.py")), "--datasets", "1", "--judgments", "60", "--json"])
    causes.main()
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(told["passed"]) == {*causes.BAD, "good raters"}
    assert told["judgments"]["60"]["accused"]["n"] == causes.NUM_GOOD
