from __future__ import annotations

import json
import sys

import adaptive as bench
import consensus as world
import numpy as np
import pytest


def test_a_curve_crosses_where_its_mean_does() -> None:
    labels = np.array([1.0, 2.0, 3.0])
    curves = np.array([[0.5, 0.7, 0.9], [0.7, 0.9, 0.9]])  # mean .6, .8, .9
    assert bench.crossing(labels, curves, 0.7) == pytest.approx(1.5 / 3)
    assert bench.crossing(labels, curves, 0.5) == pytest.approx(1 / 3)
    assert bench.crossing(labels, curves, 0.95) == bench.NEVER


@pytest.mark.parametrize("way", bench.WAYS, ids=lambda way: way.name)
def test_a_way_goes_on_by_small_steps_from_one_label_to_the_budget(way: bench.Way) -> None:
    data = world.simulate(0.2, num_items=60, seed=0, raters_per_item=bench.MOST)
    curve = bench.follow(way, data, seed=0)
    assert curve.labels[0] == 1
    assert all(
        0 < later - earlier <= 1 / bench.STEPS for earlier, later in zip(curve.labels, curve.labels[1:], strict=False)
    )
    assert curve.labels[-1] <= bench.FIXED
    assert 0.6 < curve.accuracy[-1] < 1


def test_quickly(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["adaptive.py", "--datasets", "2", "--bad", "0.2", "--items", "60", "--json"])
    bench.main()
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    figures = told["figures"]["20 % bad"]
    assert set(figures) == {"majority of 3", *(way.name for way in bench.WAYS)}
