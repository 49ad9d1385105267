"""A thousand kills on each database. What has been run is not run again: remove runs/kills.jsonl to begin anew."""

from __future__ import annotations

import kills
import postgresql
import pytest

from tests.conftest import ROOT


@pytest.mark.soak
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_thousand_kills(database: str) -> None:
    if database == "postgresql" and postgresql.programs() is None:
        pytest.skip(postgresql.MISSING)
    told = kills.kill_often(database, 1000, results=ROOT / "runs" / "kills.jsonl", keep=ROOT / "runs" / "kills")
    assert told["violations"] == {}
    assert told["runs"] == 1000
    assert told["acknowledged"] >= kills.LEAST_ACKNOWLEDGED
    assert told["kills_between"] >= 10
