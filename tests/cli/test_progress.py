"""What a terminal shows at the end of a run, and what a log holds while it goes on."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import pytest
from rich.console import Console

from tuneful.cli.progress import Bars, Lines

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Screen:
    """A terminal of 80 columns."""

    def __init__(self) -> None:
        self.written = io.StringIO()
        self.console = Console(file=self.written, force_terminal=True, width=80, color_system=None)

    def last(self, lines: int) -> list[str]:
        """Its last lines, words one space apart and the bars left out."""
        shown = CONTROL.sub("", self.written.getvalue()).replace("\r", "\n").rstrip().split("\n")
        return [" ".join(re.sub("[━╸╺]+", "", line).split()) for line in shown[-lines:]]


def two_steps_and(error: BaseException, shown: Bars | Lines) -> None:
    """A stage of four steps that an error ends after two."""
    with shown as display:
        display.stage("ppo", "ppo")
        display.step(1, 4, {"reward": 0.25})
        display.step(2, 4, {"reward": 0.5})
        raise error


def test_a_bar_is_left_where_an_error_or_ctrl_c_found_it() -> None:
    for error, word in ((ValueError, "failed"), (KeyboardInterrupt, "stopped")):
        screen = Screen()
        with pytest.raises(error):
            two_steps_and(error(), Bars(screen.console))
        assert screen.last(1) == [f"ppo 2/4 0:00:00 {word} reward 0.5"]


def test_a_stage_that_ends_early_or_needs_no_steps_is_done() -> None:
    screen = Screen()
    with Bars(screen.console) as display:
        display.stage("sft", "sft")
        display.stage("ppo", "ppo")
        display.step(30, 200, {"kl": 6.0})
    assert screen.last(2) == ["sft 0:00:00 done", "ppo 30/200 0:00:00 done kl 6"]


def test_each_kind_of_work_keeps_its_bar() -> None:
    """A base that is made, the training, the normalisation's answers, of which there are as many as steps."""
    screen = Screen()
    with Bars(screen.console) as display:
        display.stage("reward", "reward")
        display.step(7, 7, {"loss": 2.0})
        for step in (31, 32):
            display.step(step, 32, {"loss": 0.5})
        display.step(32, 32, {})
    assert screen.last(3) == ["reward 7/7 0:00:00 loss 2", "32/32 0:00:00 loss 0.5", "32/32 0:00:00 done answers"]


def test_work_without_metrics_is_told_by_what_it_counts(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    for shown in (Bars(screen.console), Lines(clock=lambda: 0.0)):
        with shown as display:
            display.stage("tokens", "of prompts and answers")
            display.step(8, 8, {}, unit="texts")
    assert screen.last(1) == ["tokens 8/8 0:00:00 done texts"]
    assert lines_of(capsys) == ["tokens: begins", "tokens: 8/8  texts", "tokens: done after 0:00:00"]


def test_eighty_columns_cut_numbers_and_not_times() -> None:
    screen = Screen()
    with Bars(screen.console) as display:
        display.stage("evaluate_1", "ppo")
        display.step(1000, 2400, {"reward": -0.123, "kl": 0.0123, "loss": -1.23e-5, "accuracy": 0.123})
        display.step(1001, 2400, {"reward": -0.123, "kl": 0.0123, "loss": -1.23e-5, "accuracy": 0.123})
    (line,) = screen.last(1)
    assert line.startswith("evaluate_1 1001/2400 0:00:00 done reward -0.123")
    assert line.endswith("…")


def test_markup_in_names_is_text() -> None:
    screen = Screen()
    with Bars(screen.console) as display:
        display.note("data[red].jsonl: skipped")
        display.stage("score", "answers[bold]")
        assert screen.last(1) != [""]
    assert "· data[red].jsonl: skipped" in screen.written.getvalue()
    assert "answers[bold]" in screen.written.getvalue()


def test_an_error_before_the_first_stage_leaves_no_blank_line() -> None:
    screen = Screen()
    with pytest.raises(ValueError, match="early"), Bars(screen.console):
        raise ValueError("early")
    assert screen.written.getvalue() == ""


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    told = capsys.readouterr()
    assert told.out == ""
    return told.err.splitlines()


def test_a_log_gets_a_line_for_each_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines(clock=lambda: 0.0) as display:
        display.stage("sft", "sft")
        assert lines_of(capsys) == ["sft: begins"]
        for step in range(1, 101):
            display.step(step, 100, {"loss": 1.0})
        display.step(32, 32, {})
        display.note("a row was skipped")
    trained = [f"sft: {step}/100  loss 1" for step in range(10, 101, 10)]
    assert lines_of(capsys) == [*trained, "sft: 32/32  answers", "· a row was skipped", "sft: done after 0:00:00"]


def test_a_log_gets_a_line_every_half_minute(capsys: pytest.CaptureFixture[str]) -> None:
    """A second at each look: at the start of the stage, at each step, at the end."""
    seconds: Iterator[int] = iter(range(1000))
    with Lines(clock=lambda: float(next(seconds))) as display:
        display.stage("ppo", "ppo")
        for step in range(1, 71):
            display.step(step, 10_000, {"kl": 0.5})
    assert lines_of(capsys) == [
        "ppo: begins",
        "ppo: 30/10000  kl 0.5",
        "ppo: 60/10000  kl 0.5",
        "ppo: done after 0:01:11",
    ]


def test_a_log_says_where_an_error_or_ctrl_c_came(capsys: pytest.CaptureFixture[str]) -> None:
    for error, word in ((ValueError, "failed"), (KeyboardInterrupt, "stopped")):
        with pytest.raises(error):
            two_steps_and(error(), Lines(clock=lambda: 0.0))
        assert lines_of(capsys)[-1] == f"ppo: {word} at 2/4 after 0:00:00"
