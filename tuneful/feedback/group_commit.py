"""Writers of one process in turn, for SQLite has one write lock; those that wait together share one commit.

A commit waits for the disk while it holds the lock, so whoever comes meanwhile waits for it, then for each that came
before. The first of those that wait does the work of all in one transaction, in the order in which they came: one wait
for the disk, after which each is told. Nobody waits in order to be more.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import Any

from sqlalchemy import Connection, Engine


@dataclass(slots=True, eq=False)
class _Writer:
    """called: by who did the work, which is done then, or by who passes on the turn."""

    work: Callable[[Connection], Any]
    called: Event = field(default_factory=Event)
    done: bool = False
    result: Any = None
    error: BaseException | None = None


class GroupCommit:
    """Turns of the threads that write through one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = Lock()  # of the two below; held for moments only
        self._taken = False
        self._waiting: list[_Writer] = []

    def write(self, work: Callable[[Connection], Any], *, until: float) -> Any:
        """What `work` returns, once it is committed; what it raises, once it is undone, and the others' is not.

        Raises TimeoutError when its turn has not come by `until` of the monotonic clock; nothing is done then. An error
        of the commit, or one with which SQLite undoes the transaction, is that of all whose work was in it.
        """
        mine = _Writer(work)
        with self._lock:
            self._waiting.append(mine)
            is_first, self._taken = not self._taken, True
        if not is_first and not mine.called.wait(max(0.0, until - time.monotonic())):
            with self._lock:
                if mine in self._waiting and not mine.called.is_set():
                    self._waiting.remove(mine)
                    raise TimeoutError
            mine.called.wait()  # another thread has it in hand
        if not mine.done:
            self._lead()
        if mine.error is not None:
            raise mine.error
        return mine.result

    def _lead(self) -> None:
        """The work of all that wait, and the turn to the first of those that came meanwhile."""
        with self._lock:
            group, self._waiting = self._waiting, []
        try:
            self._together(group)
        finally:
            with self._lock:
                self._taken = bool(self._waiting)
                for one in group:
                    one.done = True
                for one in (*group, *self._waiting[:1]):
                    one.called.set()

    def _together(self, group: list[_Writer]) -> None:
        try:
            with self._engine.begin() as connection:
                for one in group:
                    _one_of_several(connection, one)
        except BaseException as error:  # noqa: BLE001 - raised by each, whose threads wait for it
            for one in group:
                one.error = error


def _one_of_several(connection: Connection, one: _Writer) -> None:
    connection.exec_driver_sql("SAVEPOINT one")
    try:
        one.result = one.work(connection)
    except Exception as error:
        if not connection.connection.in_transaction:
            raise  # SQLite has undone what the others did too, as where the disk is full
        connection.exec_driver_sql("ROLLBACK TO one")
        one.error = error
    connection.exec_driver_sql("RELEASE one")
