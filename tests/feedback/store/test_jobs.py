"""Jobs on either database: one worker has one, none is lost with its worker, and none is begun for ever."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, select, text

from tuneful.errors import GoneError, MissingError, StoreError
from tuneful.feedback.completions_wanted import MOST_PROMPTS, CompletionsWanted, ask_for, wanted_by
from tuneful.feedback.items import candidates
from tuneful.feedback.jobs import (
    LEASE_SECONDS,
    MOST_LOST,
    Job,
    add_job,
    claim,
    deliver,
    enqueue,
    extend,
    fail,
    finish,
    give_back,
    job_of,
    jobs,
    report,
    stop,
)
from tuneful.feedback.projects import add_rater, create_project
from tuneful.feedback.store import Store
from tuneful.feedback.tables import completion, job
from tuneful.records import Candidates, Completion, Message, Prompt

AFTER = LEASE_SECONDS + 1


@pytest.fixture
def project(store: Store) -> str:
    return create_project(store, "helpful", now=0.0)


def ask(store: Store, project: str, *, kind: str = "completions", now: float = 0.0, **request: Any) -> str:
    return store.write(lambda connection: add_job(connection, project, kind, request, by=None, now=now))


def taken(store: Store, *, now: float, **more: Any) -> Job:
    found = claim(store, now=now, **more)
    assert found is not None
    return found


def items(*questions: str) -> list[Candidates]:
    return [Candidates(Prompt(one), (Completion("yes", model="a"), Completion("no", model="b"))) for one in questions]


def test_the_oldest_job_goes_to_one_worker(store: Store, project: str) -> None:
    second, first = ask(store, project, now=2.0), ask(store, project, now=1.0, models=["a"])
    one = taken(store, now=3.0)
    assert (one.id, one.state, one.attempts, one.request) == (first, "running", 1, {"models": ["a"]})
    assert taken(store, now=3.0).id == second
    assert claim(store, now=3.0) is None


def test_many_workers_at_once_take_each_job_once(store: Store, project: str) -> None:
    made = {ask(store, project, now=float(k)) for k in range(20)}

    def take_all(_: int) -> list[str]:
        found = []
        while len(found) < len(made) and (one := claim(store, now=30.0)) is not None:
            found.append(one.id)
        return found

    with ThreadPoolExecutor(6) as threads:
        taken_by = Counter(id_ for found in threads.map(take_all, range(6)) for id_ in found)
    while (left := claim(store, now=30.0)) is not None:  # passed over while another was being looked at
        taken_by[left.id] += 1
    assert taken_by == dict.fromkeys(made, 1)


def test_what_is_asked_for_twice_is_one_job_until_it_is_over(store: Store, project: str) -> None:
    other = create_project(store, "other", now=0.0)

    def asked(of: str = project, kind: str = "measure", group: str = "") -> str:
        return enqueue(store, of, kind, {"group": group}, by=None, now=1.0)

    with ThreadPoolExecutor(4) as threads:
        (first,) = set(threads.map(lambda _: asked(), range(8)))
    held = taken(store, now=2.0)
    assert (held.id, asked()) == (first, first)
    assert len({first, asked(of=other), asked(kind="count"), asked(group="nurse")}) == 4
    finish(store, held, now=3.0)
    assert asked() != first


def test_kinds_that_a_worker_does_not_know_wait_for_another(store: Store, project: str) -> None:
    ask(store, project, kind="measure", now=0.0)
    mine = ask(store, project, now=1.0)
    assert taken(store, kinds=["completions"], now=2.0).id == mine
    assert claim(store, kinds=["completions"], now=2.0) is None
    other = ask(store, project, now=3.0)
    assert taken(store, only=other, now=4.0).id == other


def test_the_job_of_a_worker_that_is_gone_is_begun_again(store: Store, project: str) -> None:
    ask(store, project)
    gone = taken(store, now=0.0)
    report(store, gone, 3, 10, now=1.0)
    assert claim(store, now=1.0 + LEASE_SECONDS - 0.1) is None  # each word begins the lease anew
    again = taken(store, now=1.0 + AFTER)
    assert (again.id, again.done, again.total, again.attempts) == (gone.id, 3, 10, 2)
    late = [
        lambda: report(store, gone, 9, 10, now=AFTER),
        lambda: extend(store, gone, now=AFTER),
        lambda: finish(store, gone, now=AFTER),
        lambda: fail(store, gone, "why", now=AFTER),
        lambda: deliver(store, gone, items("q"), 9, 10, overlap=1, settings={}, now=AFTER),
    ]
    for word in late:
        with pytest.raises(GoneError, match="another worker has it"):
            word()
    give_back(store, gone)
    assert job_of(store, gone.id).state == "running"
    assert job_of(store, gone.id).done == 3
    assert candidates(store, project) == []


def test_a_job_that_ends_its_workers_fails_after_some_attempts(store: Store, project: str) -> None:
    deadly, next_one = ask(store, project, now=0.0), ask(store, project, now=1.0)
    for attempt in range(MOST_LOST):
        assert taken(store, only=deadly, now=attempt * AFTER).id == deadly
    assert taken(store, now=MOST_LOST * AFTER).id == next_one
    ended = job_of(store, deadly)
    assert (ended.state, ended.finished_at) == ("failed", MOST_LOST * AFTER)
    assert "3 times without a word" in ended.message


def test_a_job_that_ends_its_workers_later_each_time_goes_on(store: Store, project: str) -> None:
    ask(store, project)
    for attempt in range(3 * MOST_LOST):
        held = taken(store, now=attempt * AFTER)
        deliver(store, held, [], attempt + 1, 100, overlap=1, settings={}, now=attempt * AFTER)
    for attempt in range(3 * MOST_LOST, 4 * MOST_LOST - 1):  # says again what was said, and gets no further
        held = taken(store, now=attempt * AFTER)
        deliver(store, held, [], 3 * MOST_LOST, 100, overlap=1, settings={}, now=attempt * AFTER)
    assert claim(store, now=100 * AFTER) is None
    assert job_of(store, held.id).state == "failed"


def test_a_job_that_begins_at_the_beginning_each_time_fails_wherever_it_ends_its_workers(
    store: Store, project: str
) -> None:
    ask(store, project)
    for attempt in range(MOST_LOST):
        held = taken(store, now=attempt * AFTER)
        for done in range(3):
            report(store, held, done, 100, now=attempt * AFTER)
    assert claim(store, now=100 * AFTER) is None
    assert job_of(store, held.id).state == "failed"


def test_a_job_that_workers_give_back_for_a_reason_fails_with_it(store: Store, project: str) -> None:
    ask(store, project)
    for attempt in range(MOST_LOST):
        held = taken(store, now=0.0)
        assert (held.attempts, held.lost) == (attempt + 1, attempt)
        give_back(store, held, why="it took too\x00long")
    assert claim(store, now=0.0) is None
    ended = job_of(store, held.id)
    assert (ended.state, ended.message) == ("failed", "it took too long")


def test_a_job_that_is_given_back_waits_at_once_and_counts_no_lost_worker(store: Store, project: str) -> None:
    ask(store, project)
    for _ in range(2 * MOST_LOST):
        held = taken(store, now=0.0)
        assert held.lost == 0
        give_back(store, held)


def test_a_worker_that_was_cut_off_and_comes_back_does_not_count_as_lost(store: Store, project: str) -> None:
    ask(store, project)
    cut_off = taken(store, now=0.0)
    for attempt in range(1, 3 * MOST_LOST):
        held = taken(store, now=attempt * AFTER)
        assert held.lost == 1
        give_back(store, cut_off)
        assert (job_of(store, held.id).state, job_of(store, held.id).lost) == ("running", 0)
        cut_off = held
    finish(store, cut_off, now=0.0)
    give_back(store, cut_off)
    assert job_of(store, cut_off.id).state == "done"


def test_a_word_of_a_worker_writes_no_request(store: Store, project: str) -> None:
    """Of the longest, 20,000 ids of 64 characters: neither sent to the database nor written by it."""
    ids = [hashlib.sha256(str(n).encode()).hexdigest() for n in range(MOST_PROMPTS)]
    ask(store, project, prompts=ids)
    held = taken(store, now=0.5)
    said = list[str]()

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        said.append(statement)

    report(store, held, 10, 100, now=0.5)  # a number that gets wider moves the row in SQLite, three times in a job
    before = num_bytes_written(store)
    event.listen(Engine, "before_cursor_execute", note)
    for n in range(11, 21):
        extend(store, held, now=n + 0.5)
        report(store, held, n, 100, now=n + 0.5)
        deliver(store, held, [], n, 100, overlap=1, settings={}, now=n + 0.5)
    event.remove(Engine, "before_cursor_execute", note)
    updates = [one for one in said if one.startswith("UPDATE")]
    assert len(updates) == 30
    for one in updates:
        written = re.findall(r"(\w+)=", one.split("WHERE")[0])
        assert set(written) <= {"lease_until", "done", "total", "lost"}
    assert num_bytes_written(store) - before < 30 * 20_000  # the request alone is 1.3 MB


def num_bytes_written(store: Store) -> int:
    """To the log of the database, since it was made."""
    if store.dialect == "sqlite":
        return Path(f"{store}-wal").stat().st_size
    with store.read() as connection:
        return int(connection.execute(text("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")).scalar_one())


def test_a_stopped_job_is_taken_from_its_worker(store: Store, project: str) -> None:
    asked = ask(store, project)
    held = taken(store, now=0.0)
    stop(store, project, asked, now=1.0)
    stop(store, project, asked, now=2.0)
    with pytest.raises(GoneError, match="stopped"):
        report(store, held, 1, 2, now=2.0)
    assert claim(store, now=AFTER) is None
    assert (job_of(store, asked).state, job_of(store, asked).finished_at) == ("stopped", 1.0)
    waiting = ask(store, project)
    stop(store, project, waiting, now=1.0)
    assert claim(store, now=AFTER) is None


def test_a_job_of_another_project_cannot_be_stopped(store: Store, project: str) -> None:
    other = create_project(store, "other", now=0.0)
    asked = ask(store, project)
    for place, name in ((other, asked), (project, "none")):
        with pytest.raises(MissingError):
            stop(store, place, name, now=1.0)
    assert job_of(store, asked).state == "waiting"
    with pytest.raises(MissingError):
        job_of(store, "none")


def test_what_came_of_it_is_kept(store: Store, project: str) -> None:
    ask(store, project)
    finish(store, taken(store, now=0.0), message="12 items", now=5.0)
    ask(store, project, now=1.0)
    fail(store, taken(store, now=1.0), "a\x00b" + "c" * 5000, now=6.0)
    failed, done = jobs(store, project, "completions")
    assert (done.state, done.message, done.finished_at, done.is_over) == ("done", "12 items", 5.0, True)
    assert (failed.state, failed.message[:4], len(failed.message)) == ("failed", "a bc", 2000)
    assert claim(store, now=AFTER) is None


def test_items_and_how_far_it_is_come_together_or_not_at_all(store: Store, project: str) -> None:
    ask(store, project)
    held = taken(store, now=0.0)
    how = {"temperature": 0.5}
    deliver(store, held, items("q1", "q2"), 2, 3, overlap=4, settings=how, now=1.0)
    with pytest.raises(StoreError, match="NUL"):
        deliver(store, held, items("q3", "q\x00"), 3, 3, overlap=4, settings=how, now=2.0)
    assert (job_of(store, held.id).done, job_of(store, held.id).total) == (2, 3)
    assert [one.prompt.text for one in candidates(store, project)] == ["q1", "q2"]
    with store.read() as connection:
        assert connection.execute(select(completion.c.settings)).scalars().all() == [how] * 4


def test_a_job_for_completions_says_what_is_wanted(store: Store, project: str) -> None:
    prompts = (*(Prompt(f"q{n}") for n in range(1100)), Prompt.user("hot"), Prompt((Message("system", "s"),)))
    wanted = CompletionsWanted(
        prompts=prompts[::-1],
        models=("a", "b"),
        samples=3,
        max_new_tokens=7,
        max_prompt_tokens=9,
        temperature=0.5,
        overlap=2,
        seed=11,
    )
    for now in (0.0, 1.0):
        ask_for(store, project, wanted, by=None, now=now)
        held = taken(store, now=now)
        assert wanted_by(store, held) == wanted
        assert held.total == len(prompts)
    assert candidates(store, project) == []


def test_the_newest_jobs_are_shown_with_the_parts_that_are_asked_for(store: Store, project: str) -> None:
    lead = add_rater(store, project, role="lead", now=0.0)
    for k in range(3):
        request = {"models": [f"m{k}"], "prompts": ["long"] * 1000}
        enqueue(store, project, "completions", request, by=lead, total=1000, now=float(k))
    ask(store, project, kind="measure", now=9.0)
    found = jobs(store, project, "completions", shown=("models",))
    assert [one.request for one in found] == [{"models": ["m2"]}, {"models": ["m1"]}, {"models": ["m0"]}]
    assert {(one.rater, one.total) for one in found} == {(lead, 1000)}
    assert all(one.request == {} for one in jobs(store, project, "completions"))
    with store.read() as connection:
        assert len(connection.execute(select(job.c.id)).all()) == 4
