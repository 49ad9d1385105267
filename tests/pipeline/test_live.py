"""The page of a run that goes on: what a person sees on it, when it is written, and that the run does not mind it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html import unescape
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tuneful.algorithms.sft import SFTConfig
from tuneful.data.jsonl import write_jsonl
from tuneful.errors import RunError
from tuneful.pipeline import live
from tuneful.pipeline.context import Silent
from tuneful.pipeline.inputs import EvaluateInputs
from tuneful.pipeline.learner_inputs import SFTInputs
from tuneful.pipeline.live import KEPT, LiveReport, Sparse
from tuneful.pipeline.recipe import Stage, load_recipe
from tuneful.pipeline.run import run_recipe
from tuneful.runs.directory import RunDirectory

STAGES = (
    Stage("first", "sft", SFTInputs(model="m", demonstrations="d"), SFTConfig()),
    Stage("second", "sft", SFTInputs(model="m", demonstrations="d"), SFTConfig()),
    Stage("last", "evaluate", EvaluateInputs(before="a", after="b", prompts="p"), None),
)
RELOADS = '<meta http-equiv="refresh" content="10">'


def text(page: Path) -> str:
    """What a page says, in words one space apart."""
    body = page.read_text(encoding="utf-8").split("</style>")[1]
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body)).replace("\N{NARROW NO-BREAK SPACE}", ",").split())


class Clock:
    """Time that stands until it is moved; one page takes `cost` seconds of it."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.cost = 0.0
        self.num_written = 0

    def now(self) -> datetime:
        return datetime(2026, 3, 1, 12, tzinfo=UTC) + timedelta(seconds=self.seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock, write = Clock(), live.write_report

    def timed(path: Path, report: Any, **more: Any) -> None:
        write(path, report, **more)
        if path.parent.name != "second":  # a stage's page and the run's are one writing
            clock.seconds += clock.cost
            clock.num_written += 1

    monkeypatch.setattr(live, "write_report", timed)
    return clock


@pytest.fixture
def shown(clock: Clock, tmp_path: Path) -> LiveReport:
    return LiveReport(Silent(), tmp_path / "out", STAGES, title="mine", clock=lambda: clock.seconds, now=clock.now)


@pytest.fixture
def record(tmp_path: Path) -> Iterator[RunDirectory]:
    with RunDirectory.open(tmp_path / "out" / "second", {}) as record:
        yield record


def evaluation(step: int, reward: float) -> dict[str, Any]:
    return {"step": step, "kind": "evaluation", "reward": reward, "distinct_2": 0.5, "seconds": 1.0}


def test_a_person_sees_how_far_it_is(shown: LiveReport, record: RunDirectory, clock: Clock, tmp_path: Path) -> None:
    """Ten steps of four seconds from the first that is told: step 11 of 61 leaves 50 steps, 200 seconds."""
    (tmp_path / "out" / "first").mkdir()
    (tmp_path / "out" / "first" / "report.html").write_text("")
    page = tmp_path / "out" / "report.html"
    clock.seconds = 30.0
    with shown.follow(STAGES[1], record, {"first": 65.0}):
        assert "Stage 2 of 3, Second : at its start." in text(page)
        record.resume_logs(None)
        clock.seconds += 9
        record.metrics.write(evaluation(0, 0.25))
        for step in range(1, 12):
            clock.seconds += 4
            record.metrics.write({"step": step, "kind": "train", "loss": 2.0 / step, "seconds": 4.0})
            shown.step(step, 61, {"loss": 2.0 / step})
        record.samples.write({"step": 11, "prompt": "Too hot", "completion": "Open a window", "score": 1.5})
        record.metrics.write(evaluation(11, 0.75))
        for written, up in ((page, ""), (record.path / "report.html", "../")):
            seen = text(written)
            assert "Stage 2 of 3, Second : step 11 of 61." in seen
            assert "Last updated 2026-03-01 12:01:23 UTC" in seen  # 30 + 9 + 11 · 4 seconds
            assert "Run begun 2026-03-01 12:00:00 UTC" in seen
            assert "Stage begun 2026-03-01 12:00:30 UTC" in seen
            assert "About 3 min 20 s left in this stage" in seen
            assert "First 1 min 5 s Second Last" in seen
            assert "Too hot Step 11 1.50 Open a window" in seen
            assert "Reward 0.75 0.25" in seen  # no training, the newest evaluation, the first
            assert "Loss 0.18" in seen
            html = written.read_text(encoding="utf-8")
            assert RELOADS in html
            assert f'<a href="{up}first/report.html">' in html
            assert html.count("<svg") == 2  # reward and loss; what is no main measure is a number


def test_the_alarm_is_seen_at_once(shown: LiveReport, record: RunDirectory, tmp_path: Path) -> None:
    with shown.follow(STAGES[1], record, {}):
        record.metrics.write(evaluation(40, 0.5))
        assert "alarm" not in text(tmp_path / "out" / "report.html")
        record.metrics.write({"step": 40, "kind": "alarm", "reason": "words run out", "action": "log"})
        record.metrics.write({"step": 50, "kind": "alarm", "reason": "still so", "action": "log"})
        seen = text(tmp_path / "out" / "report.html")
        assert "The hacking alarm rang at step 40." in seen
        assert "words run out" in seen


def test_a_continued_stage_shows_what_was_logged_before(
    shown: LiveReport, record: RunDirectory, tmp_path: Path
) -> None:
    for step in (0, 20):
        record.metrics.write(evaluation(step, step / 10))
    record.metrics.write({"step": 20, "kind": "alarm", "reason": "odd", "action": "log"})
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "logs.json").write_text(json.dumps({"metrics.jsonl": record.metrics.size()}))
    record.metrics.write(evaluation(30, 9.0))
    with shown.follow(STAGES[1], record, {}):
        record.resume_logs(tmp_path / "checkpoint")
        seen = text(tmp_path / "out" / "report.html")
        assert "at step 20" in seen
        assert "Reward 2.00 0" in seen
        assert "9.00" not in seen
        assert "alarm rang at step 20" in seen


def fails(shown: LiveReport, record: RunDirectory, error: BaseException) -> None:
    with shown.follow(STAGES[1], record, {}):
        shown.step(3, 9, {"loss": 1.0})
        raise error


def test_an_error_is_the_last_word_and_the_page_rests(shown: LiveReport, record: RunDirectory, tmp_path: Path) -> None:
    for error, words in (
        (RunError("the disk <is> full"), "RunError: the disk <is> full"),
        (KeyboardInterrupt(), "interrupted by Ctrl-C"),
    ):
        with pytest.raises(type(error)):
            fails(shown, record, error)
        for page in (tmp_path / "out" / "report.html", record.path / "report.html"):
            assert f"Second : step 3 of 9, stopped . {words}" in text(page)
            assert "left in this stage" not in text(page)
            assert "refresh" not in page.read_text(encoding="utf-8")


def test_a_stage_that_makes_answers_has_the_page_of_the_run_alone(
    shown: LiveReport, clock: Clock, tmp_path: Path
) -> None:
    with RunDirectory.open(tmp_path / "out" / "last", {}) as record, shown.follow(STAGES[2], record, {}):
        shown.step(40, 100, {})
        clock.seconds += 20
        shown.step(80, 100, {})
        assert "Stage 3 of 3, Last : answer 80 of 100." in text(tmp_path / "out" / "report.html")
        assert "About 10 s left" in text(tmp_path / "out" / "report.html")
        shown.step(5, 100, {})  # the answers of another model: no pace yet
        clock.seconds += 20
        shown.step(6, 100, {})
        assert "About 31 min 20 s left" in text(tmp_path / "out" / "report.html")  # 94 answers of 20 s
        assert not (record.path / "report.html").exists()


def test_steps_alone_write_it_every_fifteen_seconds(shown: LiveReport, record: RunDirectory, clock: Clock) -> None:
    with shown.follow(STAGES[1], record, {}):
        begun = clock.num_written
        for step in range(1, 61):
            clock.seconds += 1
            shown.step(step, 60, {"loss": 1.0})
        assert clock.num_written - begun == 4


def test_pages_take_a_small_share_of_the_time(shown: LiveReport, record: RunDirectory, clock: Clock) -> None:
    """A page of 3 seconds is paid for by 97 others: of 1,000 evaluations a second apart, few are shown."""
    clock.cost = 3.0
    with shown.follow(STAGES[1], record, {}):
        begun, at = clock.num_written, clock.seconds
        for step in range(1000):
            clock.seconds += 1
            record.metrics.write(evaluation(step, 0.0))
        written = clock.num_written - begun
        assert written == 10
        assert 3 * written / (clock.seconds - at) <= 0.03


def test_a_page_that_cannot_be_written_does_not_end_the_run(
    shown: LiveReport, record: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out" / "report.html").mkdir()
    notes: list[str] = []
    monkeypatch.setattr(shown.display, "note", notes.append)
    with shown.follow(STAGES[1], record, {}):
        for step in range(3):
            record.metrics.write(evaluation(step, 0.0))
    (note,) = notes
    assert "report.html: cannot be written" in note


def test_rows_are_kept_sparsely() -> None:
    sparse = Sparse()
    for step in range(100_001):
        sparse.add({"step": step})
    steps = [row["step"] for row in sparse.rows()]
    assert KEPT <= len(steps) <= 2 * KEPT
    assert (steps[0], steps[-1]) == (0, 100_000)
    gaps = [b - a for a, b in pairwise(steps)]
    assert len(set(gaps[:-1])) == 1
    assert 0 < gaps[-1] <= gaps[0]
    few = Sparse()
    for step in range(5):
        few.add({"step": step})
    assert [row["step"] for row in few.rows()] == [0, 1, 2, 3, 4]


class Looks(Silent):
    """A display that reads the pages at each step, and is interrupted at one."""

    def __init__(self, out: Path, dies_at: int | None = None) -> None:
        self.out = out
        self.dies_at = dies_at
        self.reloading: list[bool] = []

    def step(self, done: int, total: int, metrics: object) -> None:
        pages = [self.out / "report.html", self.out / "sft" / "report.html"]
        self.reloading.append(all(RELOADS in page.read_text(encoding="utf-8") for page in pages))
        if done == self.dies_at:
            raise KeyboardInterrupt


def test_a_run_is_live_until_it_ends(tiny_model_dir: Path, tmp_path: Path) -> None:
    prompts = [f"{a} {b}" for a in ("hot", "cold", "wet", "red") for b in ("house", "door", "tap", "tea")]
    write_jsonl(tmp_path / "rows.jsonl", ({"prompt": p, "completion": "yes please"} for p in prompts))
    (tmp_path / "recipe.toml").write_text(
        f'[splits]\nrl = 1.0\n[[stage]]\nname = "sft"\nalgorithm = "sft"\nmodel = "{tiny_model_dir}"\n'
        f'demonstrations = "{tmp_path}/rows.jsonl"\ndemonstrations_per_step = 4\nsave_every = 1\n'
    )
    recipe, out = load_recipe(tmp_path / "recipe.toml"), tmp_path / "out"
    first = Looks(out, dies_at=2)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, out, display=first)
    assert "stopped . interrupted by Ctrl-C" in text(out / "report.html")
    second = Looks(out)
    run_recipe(recipe, out, display=second)
    assert first.reloading + second.reloading == [True] * 5  # the second step was not saved and is taken again
    for page in (out / "report.html", out / "sft" / "report.html"):
        assert "refresh" not in page.read_text(encoding="utf-8")
        assert "Stage 1 of" not in text(page)
    before = (out / "report.html").read_bytes()
    run_recipe(recipe, out)
    assert (out / "report.html").read_bytes() == before
