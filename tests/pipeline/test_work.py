"""What a worker makes of jobs: answers of models as items, and no end of the worker for a job that cannot be done."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import select

from tuneful.errors import DataError, GoneError, ModelError, UnavailableError
from tuneful.feedback import adaptive, quality, win_rates
from tuneful.feedback.assignment import claim as claim_item
from tuneful.feedback.completions_wanted import KIND, CompletionsWanted, ask_for
from tuneful.feedback.items import add_items, candidates
from tuneful.feedback.jobs import (
    ADAPT,
    LEASE_SECONDS,
    MOST_LOST,
    QUALITY,
    WIN_RATES,
    Job,
    claim,
    enqueue,
    finish,
    job_of,
    jobs,
    stop,
)
from tuneful.feedback.projects import add_rater, create_project, progress, set_overlap
from tuneful.feedback.store import Store
from tuneful.feedback.submission import Said, submit
from tuneful.feedback.tables import snapshot
from tuneful.pipeline import work
from tuneful.pipeline.asked import FIRST_BATCH, answer_job, engines_of
from tuneful.pipeline.work import BEAT, LOOK, Held, run_held, run_next, run_or_wait, tend
from tuneful.records import Candidates, Completion, Prompt

NUM_PROMPTS = FIRST_BATCH + 3


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "judgments.db")
    yield opened
    opened.close()


@pytest.fixture
def project(store: Store) -> str:
    return create_project(store, "tuned", "comparison", now=0.0)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> tuple[str, str]:
    """One model under two names."""
    other = tmp_path_factory.mktemp("models") / "other"
    other.symlink_to(tiny_model_dir)
    return str(tiny_model_dir), str(other)


def wanted(models: tuple[str, ...], **more: Any) -> CompletionsWanted:
    prompts = tuple(Prompt.user(f"hot house {n}") for n in range(NUM_PROMPTS))
    given = {"prompts": prompts, "models": models, "max_new_tokens": 4, "overlap": 2}
    return CompletionsWanted(**given | more)  # type: ignore[arg-type]


def ask(store: Store, project: str, asked: CompletionsWanted) -> str:
    return ask_for(store, project, asked, by=None, now=time.time())


def quiet(_: str) -> None: ...


def run_until(store: Store, happens: Callable[[int, int], None]) -> None:
    """Take the next job and do it; `happens` is called after each batch."""
    job = claim(store, now=time.time())
    assert job is not None
    run_held(store, job, lambda held: answer_job(held, on_progress=happens), note=quiet)


def prompts_of(store: Store, project: str) -> list[Prompt]:
    return [one.prompt for one in candidates(store, project)]


def test_every_prompt_becomes_an_item_with_an_answer_of_each_model(
    store: Store, project: str, models: tuple[str, str]
) -> None:
    asked = wanted(models)
    id_ = ask(store, project, asked)
    assert run_next(store, note=quiet)
    assert not run_next(store, note=quiet)
    made = candidates(store, project)
    assert prompts_of(store, project) == list(asked.prompts)
    for one in made:
        assert {answer.model for answer in one.completions} == set(models)
    assert len({one.completions[0].model for one in made}) == 2  # neither always stands first
    ended = job_of(store, id_)
    assert (ended.state, ended.done, ended.total) == ("done", NUM_PROMPTS, NUM_PROMPTS)
    assert ended.message == f"{NUM_PROMPTS} prompts answered by 2 models"
    assert progress(store, project).wanted == 2 * NUM_PROMPTS


def test_people_can_begin_while_it_works(store: Store, project: str, models: tuple[str, str]) -> None:
    ask(store, project, wanted(models))
    seen = []
    run_until(store, lambda done, _: seen.append((done, progress(store, project).items)))
    assert seen == [(FIRST_BATCH, FIRST_BATCH), (NUM_PROMPTS, NUM_PROMPTS)]


def interrupted(_done: int, _total: int) -> None:
    raise KeyboardInterrupt


def test_a_job_that_was_interrupted_goes_on_where_it_was(store: Store, project: str, models: tuple[str, str]) -> None:
    asked = wanted(models, samples=2)
    id_ = ask(store, project, asked)
    with pytest.raises(KeyboardInterrupt):
        run_until(store, interrupted)
    assert (job_of(store, id_).state, job_of(store, id_).done) == ("waiting", FIRST_BATCH)
    assert run_next(store, note=quiet)
    assert Counter(prompts_of(store, project)) == dict.fromkeys(asked.prompts, 2)
    assert job_of(store, id_).state == "done"


def test_a_job_whose_worker_was_killed_goes_on_where_it_was(
    store: Store, project: str, models: tuple[str, str]
) -> None:
    """The worker is gone after its first batch, and says nothing."""
    asked = wanted(models)
    id_ = ask(store, project, asked)
    job = claim(store, now=time.time() - LEASE_SECONDS)
    assert job is not None
    with pytest.raises(KeyboardInterrupt), Held(store, job, note=quiet) as held:
        answer_job(held, on_progress=interrupted)
    assert not run_next(store, note=quiet, clock=time.time)  # its lease is not over: `deliver` began it anew
    assert run_next(store, note=quiet, clock=lambda: time.time() + 2 * LEASE_SECONDS)
    assert prompts_of(store, project) == list(asked.prompts)
    assert (job_of(store, id_).state, job_of(store, id_).attempts) == ("done", 2)


def test_a_stopped_job_makes_nothing_more(store: Store, project: str, models: tuple[str, str]) -> None:
    id_ = ask(store, project, wanted(models))
    run_until(store, lambda _done, _total: stop(store, project, id_, now=1.0))
    assert progress(store, project).items == FIRST_BATCH
    assert (job_of(store, id_).state, job_of(store, id_).finished_at) == ("stopped", 1.0)


def test_a_model_that_is_not_there_fails_the_job_in_words(store: Store, project: str, tmp_path: Path) -> None:
    id_ = ask(store, project, wanted((str(tmp_path / "nowhere"), "b")))
    assert run_next(store, note=quiet)
    ended = job_of(store, id_)
    assert ended.state == "failed"
    assert str(tmp_path / "nowhere") in ended.message
    assert "Traceback" not in ended.message


def test_a_prompt_that_does_not_fit_the_model_fails_the_job_in_words(
    store: Store, project: str, models: tuple[str, str]
) -> None:
    id_ = ask(store, project, wanted(models, max_new_tokens=1000))
    assert run_next(store, note=quiet)
    assert "context" in job_of(store, id_).message


def test_a_job_for_another_kind_of_project_fails(store: Store, models: tuple[str, str]) -> None:
    project = create_project(store, "three", "comparison", now=0.0)
    id_ = ask(store, project, wanted((*models, "third")))
    assert run_next(store, note=quiet)
    assert "a comparison is of 2 answers" in job_of(store, id_).message


def taken(store: Store, project: str) -> Job:
    enqueue(store, project, KIND, {}, by=None, now=0.0)
    job = claim(store, now=time.time())
    assert job is not None
    return job


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ZeroDivisionError("by zero\nline two"), "a mistake of the program (ZeroDivisionError: by zero); its trace"),
        (MemoryError(), "the memory was too small"),
        (ModelError("x: no model"), "x: no model"),
    ],
)
def test_an_error_fails_the_job_and_not_the_worker(store: Store, project: str, error: Exception, said: str) -> None:
    def broken(_: Held) -> str:
        raise error

    job = taken(store, project)
    run_held(store, job, broken, note=quiet)
    ended = job_of(store, job.id)
    assert ended.state == "failed"
    assert ended.message.startswith(said)


def test_a_job_lost_to_an_outage_is_given_back_when_the_database_is_there_again(
    store: Store, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So often that it had failed, were each a lost worker."""
    write, away, pauses = store.write, False, list[float]()

    def unless_away(work: Callable[[Any], Any]) -> Any:
        if away:
            raise UnavailableError("the database: away")
        return write(work)

    def cut_off(held: Held) -> str:
        nonlocal away
        away = True
        held.store.write(lambda _: None)
        raise AssertionError

    def sleep(seconds: float) -> None:
        nonlocal away
        pauses.append(seconds)
        away = len(pauses) % 3 > 0

    monkeypatch.setattr(store, "write", unless_away)
    enqueue(store, project, KIND, {}, by=None, now=0.0)
    told = list[str]()
    for _ in range(2 * MOST_LOST):
        job = claim(store, now=time.time())
        assert job is not None
        run_held(store, job, cut_off, note=told.append, sleep=sleep)
        assert (job_of(store, job.id).state, job_of(store, job.id).lost) == ("waiting", 0)
    assert len(pauses) == 3 * 2 * MOST_LOST
    assert told.count(f"{KIND}: cannot be given back yet: the database: away") == len(pauses)


def test_a_job_that_a_database_refuses_while_it_is_there_fails_in_the_end(store: Store, project: str) -> None:
    def too_slow(_: Held) -> str:
        raise UnavailableError("the database: canceling statement due to statement timeout; nothing was changed")

    pauses = list[float]()
    id_ = enqueue(store, project, KIND, {}, by=None, now=0.0)
    while (job := claim(store, now=time.time())) is not None:
        assert job.attempts <= MOST_LOST
        run_held(store, job, too_slow, note=quiet, sleep=pauses.append)
    assert pauses == [BEAT] * MOST_LOST
    ended = job_of(store, id_)
    assert ended.state == "failed"
    assert "statement timeout" in ended.message


def test_a_worker_whose_job_another_took_meanwhile_counts_as_alive(store: Store, project: str) -> None:
    job = taken(store, project)

    def slept(held: Held) -> str:
        other = claim(store, now=time.time() + 2 * LEASE_SECONDS)
        assert other is not None
        assert other.lost == 1
        raise GoneError("another worker has it")

    run_held(store, job, slept, note=quiet)
    assert (job_of(store, job.id).state, job_of(store, job.id).lost) == ("running", 0)


def test_the_lease_is_kept_while_a_handler_says_nothing(store: Store, project: str) -> None:
    """The clock runs on by a lease at each look; nobody else gets the job, for its lease runs on as well."""
    enqueue(store, project, KIND, {}, by=None, now=0.0)
    job = claim(store, now=0.0)
    assert job is not None
    times = iter(range(1, 10_000))
    now = [0.0]

    def clock() -> float:
        now[0] = next(times) * LEASE_SECONDS
        return now[0]

    with Held(store, job, note=quiet, clock=clock, beat=0.001):
        until = time.monotonic() + 60
        while now[0] < 3 * LEASE_SECONDS and time.monotonic() < until:
            time.sleep(0.001)
        assert now[0] >= 3 * LEASE_SECONDS
        assert claim(store, now=2 * LEASE_SECONDS) is None


def ask_until_refused(held: Held) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        held.check()


def test_a_handler_hears_that_its_job_was_stopped(store: Store, project: str) -> None:
    job = taken(store, project)
    stop(store, project, job.id, now=1.0)
    with Held(store, job, note=quiet, beat=0.001) as held, pytest.raises(GoneError):
        ask_until_refused(held)


def test_models_are_loaded_once_for_a_job_that_is_done_here(
    store: Store, project: str, models: tuple[str, str]
) -> None:
    asked = wanted(models)
    ask(store, project, asked)
    engines = engines_of(asked, note=quiet)
    assert list(engines) == list(models)
    job = claim(store, now=time.time())
    assert job is not None
    run_held(store, job, lambda held: answer_job(held, engines), note=quiet)
    assert progress(store, project).items == NUM_PROMPTS


def judged_once(store: Store, project: str) -> None:
    """Two items of which one rater has said one thing each."""
    rows = [Candidates(Prompt.user(f"hot {n}"), (Completion("yes"), Completion("no"))) for n in range(2)]
    add_items(store, project, rows, overlap=1, now=0.0)
    rater = add_rater(store, project, now=0.0)
    for _ in range(2):
        held = claim_item(store, project, rater, now=1.0)
        assert held is not None
        submit(store, held.id, rater, Said(id=str(uuid.uuid4()), ranks=(1, 2), flags={}, values={}), now=1.0)


def at(now: float) -> Callable[[], float]:
    return lambda: now


def test_between_jobs_one_more_is_asked_where_an_overlap_may_grow(store: Store, project: str) -> None:
    """Nobody is 99 in 100 sure of what one rater said."""
    other = create_project(store, "fixed", "comparison", now=0.0)
    for one in (project, other):
        judged_once(store, one)
    set_overlap(store, project, most=3, sure=0.99, now=0.0)
    assert tend(store, clock=at(2.0))
    assert not tend(store, clock=at(2.0))  # it is asked for already
    assert run_next(store, note=quiet, clock=at(2.0))
    assert (progress(store, project).wanted, progress(store, other).wanted) == (4, 2)
    assert not tend(store, clock=at(3.0))  # nothing came since
    assert not run_next(store, note=quiet, clock=at(3.0))
    (done,) = jobs(store, project, ADAPT)
    told = "2 judgments: 2 of 2 items are unsure, 2 are asked of one more now, 0 have another place in the queue"
    assert (done.state, done.message) == ("done", told)


def test_a_project_that_cannot_be_adapted_is_not_tried_for_ever(
    store: Store, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = create_project(store, "other", "comparison", now=1.0)
    for one in (project, other):
        judged_once(store, one)
        set_overlap(store, one, most=3, sure=0.9, now=0.0)
    tried = list[str]()

    def broken(_: Store, project_id: str, *, check: Callable[[], None], now: float) -> None:
        tried.append(project_id)
        raise DataError("nothing to agree on")

    monkeypatch.setattr("tuneful.feedback.adaptive.adapt", broken)
    for now in (2.0, 3.0, 4.0):
        tend(store, clock=at(now))
        while run_next(store, note=quiet, clock=at(now)):
            pass
    assert sorted(tried) == sorted([project, other])
    assert [one.message for one in jobs(store, project, ADAPT)] == ["nothing to agree on"]


def test_many_workers_adapt_a_project_one_at_a_time(
    store: Store, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged_once(store, project)
    set_overlap(store, project, most=3, sure=0.9, now=0.0)
    at_it, most, calls = 0, 0, 0
    lock = Lock()

    def slow(_store: Store, _project: str, *, check: Callable[[], None], now: float) -> str:
        nonlocal at_it, most, calls
        with lock:
            at_it, calls = at_it + 1, calls + 1
            most = max(most, at_it)
        time.sleep(0.3)
        with lock:
            at_it -= 1
        return "adapted"

    monkeypatch.setattr("tuneful.feedback.adaptive.adapt", slow)

    def look(_: int) -> None:
        for _ in range(3):
            tend(store)
            run_next(store, note=quiet)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(look, range(4)))
    assert calls >= 1
    assert most == 1


def test_quick_work_goes_before_a_long_job_and_in_between_its_parts(
    store: Store, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1.0
    judged_once(store, project)
    set_overlap(store, project, most=3, sure=0.99, now=0.0)
    seen = list[str]()

    def long(held: Held) -> str:
        nonlocal now
        for _ in range(3):
            held.check()
            seen.append(f"{progress(store, project).wanted} at {now:.0f}")
            now += LOOK / 2
        return "all"

    monkeypatch.setattr(work, "LONG", {KIND: long})
    id_ = enqueue(store, project, KIND, {}, by=None, now=0.0)
    assert run_next(store, note=quiet, clock=lambda: now)
    assert seen == ["2 at 1", "2 at 2", "4 at 3"]
    assert job_of(store, id_).state == "done"
    enqueue(store, project, KIND, {}, by=None, now=4.0)
    quick = enqueue(store, project, ADAPT, {}, by=None, now=5.0)
    assert run_next(store, note=quiet, clock=lambda: now)
    assert (job_of(store, quick).state, len(seen)) == ("done", 3)


def test_a_database_that_is_away_for_quick_work_ends_no_long_job(
    store: Store, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise UnavailableError("the database: away")

    def long(held: Held) -> str:
        with monkeypatch.context() as patched:
            patched.setattr(work, "claim", away)
            held.check()
        return "all"

    monkeypatch.setattr(work, "LONG", {KIND: long})
    times = iter(range(0, 1000, 10))
    notes = list[str]()
    id_ = enqueue(store, project, KIND, {}, by=None, now=0.0)
    assert run_next(store, note=notes.append, clock=lambda: float(next(times)))
    assert (job_of(store, id_).state, "the database: away" in notes) == ("done", True)


def test_work_that_is_due_for_ever_does_not_keep_a_long_job(
    store: Store, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A judgment that says it was made next year may be such work, if its time is believed."""
    looked = list[float]()

    def always(_: Store, *, clock: Callable[[], float]) -> bool:
        looked.append(clock())
        assert len(looked) < 100
        return True

    def long(held: Held) -> str:
        held.check()
        return "all"

    monkeypatch.setattr(work, "tend", always)
    monkeypatch.setattr(work, "LONG", {KIND: long})
    times = iter(range(0, 1000, 10))
    id_ = enqueue(store, project, KIND, {}, by=None, now=0.0)
    assert run_next(store, note=quiet, clock=lambda: float(next(times)))
    assert (job_of(store, id_).state, len(looked)) == ("done", 1)


@pytest.mark.parametrize(
    ("kind", "asked", "module", "read"),
    [
        (ADAPT, {}, adaptive, "judgments"),
        (QUALITY, {"group": None}, quality, "judgments"),
        (WIN_RATES, {}, win_rates, "matchups"),
    ],
)
def test_a_measurement_that_was_stopped_meanwhile_is_not_kept(
    store: Store,
    project: str,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    asked: dict[str, Any],
    module: ModuleType,
    read: str,
) -> None:
    """Stopped while it is read what is measured; the worker would hear of it when it extends its lease."""
    judged_once(store, project)
    set_overlap(store, project, most=3, sure=0.99, now=0.0)
    id_ = enqueue(store, project, kind, asked, by=None, now=1.0)
    read_of = getattr(module, read)

    def meanwhile(of: Store, project_id: str) -> Any:
        stop(store, project, id_, now=2.0)
        return read_of(of, project_id)

    monkeypatch.setattr(module, read, meanwhile)
    assert run_next(store, note=quiet, clock=at(3.0))
    assert job_of(store, id_).state == "stopped"
    assert progress(store, project).wanted == 2
    with store.read() as connection:
        assert connection.execute(select(snapshot.c.kind)).all() == []


def test_a_command_waits_for_the_worker_that_has_its_job(store: Store, project: str) -> None:
    judged_once(store, project)
    set_overlap(store, project, most=3, sure=0.99, now=0.0)
    here = enqueue(store, project, ADAPT, {}, by=None, now=0.0)
    assert run_or_wait(store, here, note=quiet).state == "done"
    elsewhere = enqueue(store, project, ADAPT, {}, by=None, now=0.0)
    held = claim(store, only=elsewhere, now=time.time())
    assert held is not None
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(run_or_wait, store, elsewhere, note=quiet)
        finish(store, held, message="by another", now=time.time())
        assert waiting.result(timeout=60).message == "by another"
