"""Twenty kills at random moments, half of them while a checkpoint is being written."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.end_to_end.resume import kill, moments, outcome, runner


@pytest.mark.soak
def test_twenty_kills(tiny_model_dir: Path, tmp_path: Path) -> None:
    with runner(tiny_model_dir, tmp_path / "stderr") as program:
        program.run(tmp_path / "whole")
        expected = outcome(tmp_path / "whole")
        killed = 0
        for k, (moment, when) in enumerate(moments(20, seed=1)):
            out = tmp_path / str(k)
            killed += kill(program, out, when(out)) == -signal.SIGKILL
            program.run(out)
            assert outcome(out) == expected, moment
    assert killed >= 18  # a kill drawn near the end may come too late
