"""Writers that wait together share a commit; each of them is answered as if it had been alone."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event

import pytest
from sqlalchemy import Connection, Engine, create_engine, event

from tuneful.errors import UnavailableError
from tuneful.feedback import group_commit
from tuneful.feedback.group_commit import GroupCommit
from tuneful.feedback.projects import create_project
from tuneful.feedback.store import Store

Work = Callable[[Connection], int]

SOON = 10.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "numbers.db"
    with sqlite3.connect(made) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE number (value INTEGER UNIQUE)")
    return made


@pytest.fixture
def engine(path: Path) -> Iterator[Engine]:
    made = create_engine(f"sqlite:///{path}")

    @event.listens_for(made, "connect")
    def by_hand(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None

    @event.listens_for(made, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    yield made
    made.dispose()


def numbers(path: Path) -> list[int]:
    """In the order in which they were stored, as another process sees them: what is committed."""
    with sqlite3.connect(path) as other:
        return [value for (value,) in other.execute("SELECT value FROM number ORDER BY rowid")]


def put(value: int) -> Work:
    def work(connection: Connection) -> int:
        connection.exec_driver_sql("INSERT INTO number VALUES (?)", (value,))
        return 10 * value

    return work


def broken(value: int) -> Work:
    def work(connection: Connection) -> int:
        put(value)(connection)
        raise KeyError(value)

    return work


def undoes_all(connection: Connection) -> int:
    """As SQLite does by itself where the disk is full."""
    connection.exec_driver_sql("ROLLBACK")
    raise OSError("full")


def wait_for(turns: GroupCommit, number: int) -> None:
    """Until so many wait."""
    while len(turns._waiting) < number:
        time.sleep(0.001)


def at_once(turns: GroupCommit, works: list[Work], *, alone: Collection[int] = ()) -> list[Future[int]]:
    """What becomes of works that all came while another one had the turn, one after the other.

    alone: places of those that take long.
    """
    began, go = Event(), Event()

    def first(connection: Connection) -> int:
        began.set()
        go.wait(SOON)
        return 0

    until = time.monotonic() + SOON
    with ThreadPoolExecutor(1 + len(works)) as threads:
        before = threads.submit(turns.write, first, until=until)
        began.wait(SOON)
        told = []
        for place, work in enumerate(works):
            told.append(threads.submit(turns.write, work, until=until, alone=place in alone))
            wait_for(turns, place + 1)
        go.set()
        assert before.result(SOON) == 0
    return told


def test_those_that_wait_are_committed_together_in_their_order(engine: Engine, path: Path) -> None:
    commits: list[int] = []
    event.listen(engine, "commit", lambda _: commits.append(len(numbers(path))))
    told = at_once(GroupCommit(engine), [put(value) for value in (3, 1, 4, 5, 9)])
    assert [one.result() for one in told] == [30, 10, 40, 50, 90]
    assert numbers(path) == [3, 1, 4, 5, 9]
    assert len(commits) == 2  # of the first, and of the five that came meanwhile


def test_nobody_is_answered_before_the_commit(engine: Engine, path: Path) -> None:
    turns = GroupCommit(engine)

    def stored(value: int) -> bool:
        turns.write(put(value), until=time.monotonic() + SOON)
        return value in numbers(path)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(stored, range(100)))


def test_what_one_could_not_do_is_undone_and_the_others_work_is_not(engine: Engine, path: Path) -> None:
    """The third breaks a rule of the table, which the first has taken its value of."""
    good, wrong, double, last = at_once(GroupCommit(engine), [put(1), broken(2), put(1), put(3)])
    assert (good.result(), last.result()) == (10, 30)
    with pytest.raises(KeyError):
        wrong.result()
    with pytest.raises(Exception, match="UNIQUE"):
        double.result()
    assert numbers(path) == [1, 3]


def test_where_the_database_undid_everything_all_whose_work_it_was_are_told(engine: Engine, path: Path) -> None:
    """And what had not begun is done."""
    turns = GroupCommit(engine)
    *undone, behind = at_once(turns, [put(1), undoes_all, put(2)])
    for one in undone:
        with pytest.raises(OSError, match="full"):
            one.result()
    assert behind.result() == 20
    assert turns.write(put(7), until=time.monotonic() + SOON) == 70
    assert numbers(path) == [2, 7]


def test_a_commit_that_fails_is_told_to_all(engine: Engine, path: Path) -> None:
    """A rule that is looked at when the transaction ends."""
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE child (value REFERENCES number (value) DEFERRABLE INITIALLY DEFERRED)")
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys = ON"))

    def orphan(connection: Connection) -> int:
        connection.exec_driver_sql("INSERT INTO child VALUES (77)")
        return 0

    for one in at_once(GroupCommit(engine), [put(1), orphan]):
        with pytest.raises(Exception, match="FOREIGN KEY"):
            one.result()
    assert numbers(path) == []


def test_whoever_gives_up_has_changed_nothing_and_the_turn_goes_on(engine: Engine, path: Path) -> None:
    turns, began, go = GroupCommit(engine), Event(), Event()

    def slow(connection: Connection) -> int:
        began.set()
        go.wait(SOON)
        return put(1)(connection)

    with ThreadPoolExecutor(1) as threads:
        told = threads.submit(turns.write, slow, until=time.monotonic() + SOON)
        began.wait(SOON)
        with pytest.raises(UnavailableError, match="busy"):
            turns.write(put(2), until=time.monotonic())
        go.set()
        assert told.result(SOON) == 10
    assert turns.write(put(3), until=time.monotonic() + SOON) == 30
    assert numbers(path) == [1, 3]


class Cut(Event):
    """Whoever waits for it is interrupted: at once, or when it has come."""

    at_once = True

    def wait(self, timeout: float | None = None) -> bool:
        if not self.at_once:
            super().wait(timeout)
        raise KeyboardInterrupt


@contextmanager
def while_another_writes(turns: GroupCommit) -> Iterator[None]:
    """Inside, the turn is taken."""
    began, go = Event(), Event()

    def slow(connection: Connection) -> int:
        began.set()
        go.wait(SOON)
        return put(1)(connection)

    with ThreadPoolExecutor(1) as threads:
        told = threads.submit(turns.write, slow, until=time.monotonic() + SOON)
        began.wait(SOON)
        yield
        go.set()
        assert told.result(SOON) == 10


def called_by(monkeypatch: pytest.MonkeyPatch, event: Event) -> None:
    """The next writers are called by this event."""
    monkeypatch.setattr(group_commit, "_Writer", partial(group_commit._Writer, called=event))


def test_one_that_is_interrupted_while_it_waits_is_forgotten(
    engine: Engine, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = GroupCommit(engine)
    with while_another_writes(turns), monkeypatch.context() as patched:
        called_by(patched, Cut())
        with pytest.raises(KeyboardInterrupt):
            turns.write(put(2), until=time.monotonic() + SOON)
    assert turns.write(put(3), until=time.monotonic() + SOON) == 30
    assert numbers(path) == [1, 3]


def test_one_that_is_interrupted_as_it_gets_the_turn_passes_it_on(
    engine: Engine, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns, cut = GroupCommit(engine), Cut()
    cut.at_once = False
    with ThreadPoolExecutor(2) as threads:
        with while_another_writes(turns):
            with monkeypatch.context() as patched:
                called_by(patched, cut)
                interrupted = threads.submit(turns.write, put(2), until=time.monotonic() + SOON)
                wait_for(turns, 1)
            behind = threads.submit(turns.write, put(3), until=time.monotonic() + 2 * SOON)
            wait_for(turns, 2)
        with pytest.raises(KeyboardInterrupt):
            interrupted.result(SOON)
        assert behind.result(SOON) == 30
    assert numbers(path) == [1, 3]


def test_an_interrupt_is_raised_in_its_own_thread_alone(engine: Engine, path: Path) -> None:
    """The first has the second in hand when it is interrupted; the third has not begun."""

    def interrupts(connection: Connection) -> int:
        put(2)(connection)
        raise KeyboardInterrupt

    turns = GroupCommit(engine)
    leader, in_hand, behind = at_once(turns, [put(1), interrupts, put(3)])
    with pytest.raises(KeyboardInterrupt):
        leader.result()
    with pytest.raises(UnavailableError, match="interrupted"):
        in_hand.result()
    assert behind.result() == 30
    assert turns.write(put(4), until=time.monotonic() + SOON) == 40
    assert numbers(path) == [3, 4]


def test_a_transaction_takes_in_no_more_once_its_time_is_over(
    engine: Engine, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "TOGETHER_SECONDS", 0.0)
    commits: list[int] = []
    event.listen(engine, "commit", lambda _: commits.append(len(numbers(path))))
    told = at_once(GroupCommit(engine), [put(value) for value in (3, 1, 4)])
    assert [one.result() for one in told] == [30, 10, 40]
    assert numbers(path) == [3, 1, 4]
    assert commits == [0, 0, 1, 2]  # numbers that stood there before each commit


def test_what_takes_long_shares_its_transaction_with_nobody(engine: Engine, path: Path) -> None:
    """Two, a long one, and two: three transactions."""
    commits: list[int] = []
    event.listen(engine, "commit", lambda _: commits.append(len(numbers(path))))
    told = at_once(GroupCommit(engine), [put(value) for value in (3, 1, 4, 5, 9)], alone=[2])
    assert [one.result() for one in told] == [30, 10, 40, 50, 90]
    assert numbers(path) == [3, 1, 4, 5, 9]
    assert commits == [0, 0, 2, 3]


def test_one_that_waits_behind_another_s_work_gives_up_in_time(engine: Engine, path: Path) -> None:
    """The one before it in the same transaction goes on until it has."""
    turns, began, go = GroupCommit(engine), Event(), Event()

    def long(connection: Connection) -> int:
        began.set()
        go.wait(SOON)
        return put(2)(connection)

    with ThreadPoolExecutor(2) as threads:
        with while_another_writes(turns):
            before = threads.submit(turns.write, long, until=time.monotonic() + SOON)
            wait_for(turns, 1)
            behind = threads.submit(turns.write, put(3), until=time.monotonic() + 0.5)
            wait_for(turns, 2)
        began.wait(SOON)
        with pytest.raises(UnavailableError, match="busy"):
            behind.result(SOON)
        go.set()
        assert before.result(SOON) == 20
    assert numbers(path) == [1, 2]


def test_one_whose_work_another_has_in_hand_waits_for_its_end(
    engine: Engine, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time is over, and its work goes on; to say that nothing was changed would be wrong."""
    turns, began, go, waits_on = GroupCommit(engine), Event(), Event(), Event()

    class Told(Event):
        def wait(self, timeout: float | None = None) -> bool:
            if timeout is None:
                waits_on.set()
                return super().wait(SOON)
            return began.wait(SOON) and False

    def slow(connection: Connection) -> int:
        began.set()
        go.wait(SOON)
        return put(3)(connection)

    with ThreadPoolExecutor(2) as threads:
        with while_another_writes(turns):
            before = threads.submit(turns.write, put(2), until=time.monotonic() + SOON)
            wait_for(turns, 1)
            with monkeypatch.context() as patched:
                called_by(patched, Told())
                late = threads.submit(turns.write, slow, until=time.monotonic())
                wait_for(turns, 2)
        assert waits_on.wait(SOON)
        go.set()
        assert (before.result(SOON), late.result(SOON)) == (20, 30)
    assert numbers(path) == [1, 2, 3]


def test_a_work_s_own_timeout_is_its_own(tmp_path: Path) -> None:
    """Nobody was busy."""

    def too_slow(_: Connection) -> None:
        raise TimeoutError("the other server")

    store = Store.open(tmp_path / "judgments.db")
    with pytest.raises(TimeoutError, match="the other server"):
        store.write(too_slow)
    store.close()


def test_two_stores_on_one_file_lose_nothing(tmp_path: Path) -> None:
    """As two processes would: each takes turns among its own threads, and waits for the other at the lock."""
    stores = [Store.open(tmp_path / "judgments.db") for _ in range(2)]
    with ThreadPoolExecutor(16) as threads:
        made = set(threads.map(lambda n: create_project(stores[n % 2], f"project {n}", now=0.0), range(60)))
    with stores[0].read() as connection:
        found = set(connection.exec_driver_sql("SELECT id FROM project").scalars())
    assert found == made
    assert len(made) == 60
    for store in stores:
        store.close()
