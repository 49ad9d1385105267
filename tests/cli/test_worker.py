"""`tuneful worker` and the one beside `tuneful web`: how they end, and that they do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tuneful.feedback.completions_wanted import CompletionsWanted, ask_for
from tuneful.feedback.jobs import job_of
from tuneful.feedback.projects import create_project, progress
from tuneful.feedback.store import Store
from tuneful.records import Prompt

PATIENCE = 120.0
"""Seconds until a thing that has to happen counts as not happening."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "judgments.db"


@pytest.fixture
def store(place: Path) -> Iterator[Store]:
    opened = Store.open(place)
    yield opened
    opened.close()


def started(*arguments: object, **more: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tuneful", *map(str, arguments)]
    return subprocess.Popen(command, text=True, stderr=subprocess.PIPE, **more)


def until(holds: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE
    while not (found := holds()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def line(process: subprocess.Popen[str], word: str) -> str:
    """The next line of what it says in which the word is."""
    assert process.stderr is not None
    return next(said for said in process.stderr if word in said)


def ask(store: Store, project: str, model: object, prompts: int = 3) -> str:
    asked = CompletionsWanted(
        prompts=tuple(Prompt.user(f"hot {n}") for n in range(prompts)),
        models=(str(model),),
        samples=2,
        max_new_tokens=4,
    )
    return ask_for(store, project, asked, by=None, now=0.0)


def test_once_does_what_waits_and_ends(store: Store, place: Path, tiny_model_dir: Path) -> None:
    project = create_project(store, "tuned", now=0.0)
    good, bad = ask(store, project, tiny_model_dir), ask(store, project, place.parent / "nowhere")
    with started("worker", "--store", place, "--once") as worker:
        said = worker.communicate()[1]
    assert worker.returncode == 0
    assert (job_of(store, good).state, job_of(store, bad).state) == ("done", "failed")
    assert progress(store, project).items == 3
    assert "completions: 3 prompts answered by 1 model" in said
    assert "nowhere" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_worker_told_to_end_gives_its_job_back(
    store: Store, place: Path, tiny_model_dir: Path, number: signal.Signals
) -> None:
    id_ = ask(store, create_project(store, "tuned", now=0.0), tiny_model_dir, prompts=20_000)
    with started("worker", "--store", place) as worker:
        until(lambda: job_of(store, id_).done > 0)
        worker.send_signal(number)
        said = worker.communicate()[1]
    assert worker.returncode == 0
    assert "Traceback" not in said
    left = job_of(store, id_)
    assert (left.state, left.lost) == ("waiting", 0)
    assert 0 < left.done < left.total


def test_a_worker_ends_with_its_input(store: Store, place: Path) -> None:
    with started("worker", "--store", place, "--until-eof", stdin=subprocess.PIPE) as worker:
        line(worker, "waits for jobs")
        assert worker.stdin is not None
        worker.stdin.close()
        assert worker.wait(PATIENCE) == 0


def worker_of(web: int) -> int | None:
    """The process beside the pages, which any thread of the server may have begun."""
    for thread in Path(f"/proc/{web}/task").iterdir():
        for child in (thread / "children").read_text().split():
            if b"worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
    return None


def is_gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for processes in /proc")


@needs_proc
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_worker_beside_the_pages_ends_with_them(place: Path, number: signal.Signals) -> None:
    with started("web", "--store", place, "--port", 0, stdout=subprocess.DEVNULL) as web:
        line(web, "waits for jobs")
        worker = worker_of(web.pid)
        assert worker is not None
        web.send_signal(number)
        web.wait(PATIENCE)
        until(lambda: is_gone(worker))


@needs_proc
def test_the_worker_beside_the_pages_is_begun_again(place: Path) -> None:
    with started("web", "--store", place, "--port", 0, stdout=subprocess.DEVNULL) as web:
        line(web, "waits for jobs")
        worker = worker_of(web.pid)
        assert worker is not None
        os.kill(worker, signal.SIGKILL)
        line(web, "it is started again")
        line(web, "waits for jobs")
        assert worker_of(web.pid) not in (None, worker)
        web.terminate()


@needs_proc
def test_pages_without_a_worker(place: Path) -> None:
    with started("web", "--store", place, "--port", 0, "--no-worker", stdout=subprocess.PIPE) as web:
        assert web.stdout is not None
        assert "is a new, empty store" in web.stdout.readline()
        assert "judgments of" in web.stdout.readline()
        assert "nobody is admin yet" in web.stdout.readline()
        assert worker_of(web.pid) is None
        web.terminate()
