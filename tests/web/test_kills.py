"""A few runs of bench/kills.py: SIGKILL of the web server under load, and the history checker after each."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import kills
import postgresql
import pytest


@pytest.mark.parametrize(("database", "runs"), [("sqlite", 10), ("postgresql", 5)])
def test_nothing_lost_nothing_double(database: str, runs: int, tmp_path: Path) -> None:
    if database == "postgresql":
        if postgresql.programs() is None:
            pytest.skip(postgresql.MISSING)
        pytest.importorskip("psycopg")
    results = tmp_path / "kills.jsonl"
    with ThreadPoolExecutor(1) as thread:  # a browser's tests before these leave an event loop in this one
        told = thread.submit(kills.kill_often, database, runs, results=results, keep=tmp_path / "kept").result()
    assert told["violations"] == {}
    assert told["runs"] == runs
    assert told["acknowledged"] >= 10 * runs
    assert told["freed"] > 0
    lines = results.read_text()
    assert kills.kill_often(database, runs, results=results, keep=tmp_path / "kept") == told
    assert results.read_text() == lines  # what has a line is not run again


def test_a_plan_is_drawn_before_its_run() -> None:
    plans = [kills.draw(run) for run in range(200)]
    assert plans == [kills.draw(run) for run in range(200)]
    assert plans[0] != kills.draw(0, seed=1)
    beside = [plan for plan in plans if plan.after]
    assert 60 < len(beside) < 140
    assert all(plan.delay <= (kills.SOON_SECONDS if plan.after else kills.LOAD_SECONDS) for plan in plans)
    assert {plan.back is None for plan in plans} == {True, False}
