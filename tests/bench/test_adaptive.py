from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from typing import cast

import adaptive as bench
import consensus as world
import numpy as np
import pytest

from tuneful.feedback.consensus import Consensus
from tuneful.feedback.gains import Outlook
from tuneful.records import Judgment


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


def followed(way: bench.Way, monkeypatch: pytest.MonkeyPatch) -> list[Counter[str]]:
    """How many labels each of 60 items has, at each fit."""
    seen: list[Counter[str]] = []
    fit = bench.consensus

    def counted(given: Sequence[Judgment]) -> Consensus:
        seen.append(Counter(one.item for one in given))
        assert len({one.id for one in given}) == len(given), "a label was given twice"
        assert len({(one.item, one.rater) for one in given}) == len(given), "a labeler judged an item twice"
        return fit(given)

    monkeypatch.setattr(bench, "consensus", counted)
    bench.follow(way, world.simulate(0.2, num_items=60, seed=0, raters_per_item=bench.MOST), seed=0)
    return seen


def shares(labels: Counter[str]) -> dict[int, int]:
    """Items by their number of labels."""
    return dict(Counter(labels.values()))


def test_a_fixed_way_gives_every_item_a_second_label_before_any_has_a_third(monkeypatch: pytest.MonkeyPatch) -> None:
    """An eighth of 60 items at a time, 7: after k fits there are 60 + 7 k labels. At the 8th 56 items have two and 4
    have one, the 9th step gives these 4 their second and 3 a third, and the last of 180 labels makes 3 each of all."""
    seen = followed(bench.WAYS[0], monkeypatch)
    assert shares(seen[0]) == {1: 60}
    assert shares(seen[8]) == {2: 56, 1: 4}
    assert shares(seen[9]) == {2: 57, 3: 3}
    assert shares(seen[-1]) == {3: 60}
    assert len(seen) == 1 + 18  # 17 steps of 7 labels are 119 of the 120, and one more


@pytest.mark.parametrize("way", bench.WAYS[1:], ids=lambda way: way.name)
def test_what_adapts_gives_its_overlap_to_all_first_and_nobody_more_than_its_most(
    way: bench.Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels go to unsure items: some end with what all get, and some with more than the three of a fixed way."""
    seen = followed(way, monkeypatch)
    for labels in seen:
        assert max(labels.values()) <= way.overlap or min(labels.values()) >= way.overlap
    last = shares(seen[-1])
    assert sum(last.values()) == 60
    assert (min(last), max(last) <= way.most) == (way.overlap, True)
    assert max(last) > bench.FIXED
    assert sum(number * items for number, items in last.items()) <= 3 * 60


def test_who_gets_the_next_label(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of five items, dealt 4 2 0 1 3, item 0 has one label, 1 and 2 two, 3 and 4 three; 2, 3 and 4 are unsure. Overlap
    2: item 0 wants its second before the others a further one, as they were dealt. The queue asks the greatest gain."""
    judged = {"item-0": 1, "item-1": 2, "item-2": 2, "item-3": 3, "item-4": 3}
    told = ((0.95, 0.5), (0.95, 0.4), (0.5, 0.1), (0.5, 0.3), (0.5, 0.2))
    seen = {f"item-{i}": Outlook(sure=sure, gain=gain) for i, (sure, gain) in enumerate(told)}
    monkeypatch.setattr(bench, "outlooks", lambda _: seen)
    found, dealt = cast(Consensus, None), [4, 2, 0, 1, 3]
    assert bench._next(bench.Way("adaptive", 2, 6), found, judged, dealt) == [0, 4, 2, 3]
    assert bench._next(bench.Way("fixed", 3, 3), found, judged, dealt) == [0, 2, 1]
    assert bench._next(bench.Way("queue", 1, 6, queue=True), found, judged, dealt) == [3, 4, 2]


def test_quickly(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["adaptive.py", "--datasets", "2", "--bad", "0.2", "--items", "60", "--json"])
    bench.main()
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    figures = told["figures"]["20 % bad"]
    assert set(figures) == {"majority of 3", *(way.name for way in bench.WAYS)}
