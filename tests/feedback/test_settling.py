"""What a decision makes of a consensus: the pairs of its item, worked by hand, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tuneful.data.jsonl import write_jsonl
from tuneful.errors import DataError
from tuneful.feedback.consensus import consensus
from tuneful.feedback.settling import (
    FILE,
    Decision,
    decision_row,
    decisions_beside,
    read_decisions,
    settle,
    standing,
)


def decision(item: str = "item-0", ranks: tuple[int, ...] = (4, 1, 2, 2), **more: Any) -> Decision:
    number = item.removeprefix("item-")
    known = {"id": f"decision-{number}", "item": item, "prompt": f"prompt-{number}", "criterion": "preference"}
    names = tuple(f"{number}-{k}" for k in range(len(ranks)))
    return Decision(**{**known, "completions": names, "rater": "lead", "ranks": ranks} | more)


def test_pairs_are_as_decided_and_all_else_is_as_found(simulate: Callable[..., Any]) -> None:
    """Ranks 4, 1, 2, 2: answer 1 before 2 and 3, which tie, and 0 is last."""
    found = consensus(simulate(["careful"] * 4, seed=0, num_items=20).judgments)
    settled = settle(found, [decision()])
    mine = {(pair.first, pair.second): (pair.p, pair.weight) for pair in settled.pairs if pair.item == "item-0"}
    assert mine == {
        ("0-1", "0-0"): (1.0, pytest.approx(1 / 6)),
        ("0-2", "0-0"): (1.0, pytest.approx(1 / 6)),
        ("0-3", "0-0"): (1.0, pytest.approx(1 / 6)),
        ("0-1", "0-2"): (1.0, pytest.approx(1 / 6)),
        ("0-1", "0-3"): (1.0, pytest.approx(1 / 6)),
        ("0-2", "0-3"): (0.5, pytest.approx(1 / 6)),
    }
    others = [pair for pair in settled.pairs if not pair.decided]
    assert others == [pair for pair in found.pairs if pair.item != "item-0"]
    assert [pair.item for pair in settled.pairs] == sorted(pair.item for pair in found.pairs)
    same = ("raters", "alpha", "alpha_reason", "slope", "nu")
    assert [getattr(settled, name) for name in same] == [getattr(found, name) for name in same]


def test_scores_of_a_decided_item_are_its_ranks(simulate: Callable[..., Any]) -> None:
    """Ranks 1, 2, 3 and 4 lie at 3/2, 1/2, -1/2, -3/2 of their mean, and their standard deviation is sqrt(5)/2."""
    found = consensus(simulate(["careful"] * 4, seed=0, num_items=20).judgments)
    settled = settle(found, [decision(ranks=(1, 2, 3, 4)), decision("item-1", (1, 1, 1, 1))])
    assert [settled.scores[f"0-{k}"][0] for k in range(4)] == pytest.approx(
        [1.3416, 0.4472, -0.4472, -1.3416], abs=1e-4
    )
    assert [settled.scores[f"1-{k}"] for k in range(4)] == 4 * [(0.0, 0.0)]
    assert settled.scores["2-0"] == found.scores["2-0"]


def test_the_last_decision_counts(simulate: Callable[..., Any]) -> None:
    found = consensus(simulate(["careful"] * 4, seed=0, num_items=20).judgments)
    first = decision(ranks=(1, 2, 3, 4))
    second = replace(first, id="later", ranks=(4, 3, 2, 1), replaces=first.id)
    for made in ([first, second], [second, first]):
        assert standing(made) == {"item-0": second}
        assert {p.first for p in settle(found, made).pairs if p.item == "item-0" and p.second == "0-0"} == {
            *("0-1", "0-2", "0-3")
        }


def test_a_decision_of_values_orders_nothing(simulate: Callable[..., Any]) -> None:
    found = consensus(simulate(["careful"] * 4, seed=0, num_items=20).judgments)
    assert settle(found, [decision(ranks=(), values={"preference": 1})]) == found


def test_a_file_of_decisions_gives_them_back(tmp_path: Path) -> None:
    made = [decision(why='"so"\n\u202e'), decision("item-1", (), values={"x": 0.5}, replaces="decision-0")]
    write_jsonl(tmp_path / FILE, map(decision_row, made))
    assert read_decisions(tmp_path / FILE) == made
    assert decisions_beside(tmp_path / "judgments.jsonl") == made
    assert decisions_beside(tmp_path / "elsewhere" / "judgments.jsonl") == []


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"ranks": [1, 2]}, "ranks"),
        ({"ranks": [0, 1, 2, 3]}, "ranks"),
        ({"ranks": [True, 1, 2, 3]}, "ranks"),
        ({"completions": ["a", "a"], "ranks": []}, "completions"),
        ({"values": {"x": "much"}}, "values"),
        ({"values": [1]}, "values"),
        ({"item": None}, "item"),
        ({"rank": [1]}, "rank"),
    ],
    ids=str,
)
def test_a_row_that_is_no_decision_is_named(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    row = json.loads(json.dumps(decision_row(decision()))) | change
    write_jsonl(tmp_path / FILE, [row])
    with pytest.raises(DataError, match=rf'decisions.jsonl:1: field "{field}"'):
        read_decisions(tmp_path / FILE)
