from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from table import COMPARISONS, found, table

FIRST = COMPARISONS[0]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Of the first comparison an older line, a newer one, a void one after it, and one of another size."""
    path = tmp_path / "results.jsonl"
    line: dict[str, Any] = {"comparison": FIRST.name, "size": "S", "workload": "ragged", "baseline_workload": "fixed"}
    line |= {"void": False, "trl_of_baseline": 1.034}
    line |= {"date": "2026-11-26", "commit": "abc1234", "speed_range": [3.0, 5.0], "memory_range": [0.2, 0.3]}
    lines = [
        line | {"speed": 1.0, "memory": 0.9},
        line | {"speed": 4.123, "memory": 0.249},
        line | {"speed": 99.0, "memory": 0.0, "void": True, "trl_of_baseline": 0.3},
        line | {"speed": 2.0, "memory": 0.5, "size": "M"},
    ]
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return path


def test_a_void_line_is_no_result(results: Path) -> None:
    told = found(results, FIRST, "S")
    assert told is not None
    assert told["speed"] == 4.123
    assert found(results, COMPARISONS[1], "S") is None


def test_a_row_tells_what_was_reached_and_what_is_asked(results: Path) -> None:
    *_, row = table(results, "S")
    assert row == (
        "| PPO, ragged, LoRA | 4.12 (3.00 to 5.00) | 4.0 | 0.25 (0.20 to 0.30) | 0.25 | 1.03 (fixed) "
        "| 2026-11-26, abc1234 |"
    )
    assert len(table(results, "S")) == 3


def test_names_are_told_apart() -> None:
    assert len({one.name for one in COMPARISONS}) == len(COMPARISONS)


def test_the_page_names_what_is_asked() -> None:
    page = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| ")]
    printed = {row[0]: (row[2], row[4]) for row in rows if len(row) == 7}
    asked = {
        one.name: tuple(form % what if what else "" for form, what in (("%.1f", one.speed), ("%.2f", one.memory)))
        for one in COMPARISONS
    }
    told = {name: cells for name, cells in printed.items() if name in asked}
    assert len(told) >= 12
    assert told == {name: asked[name] for name in told}
