"""Writers of one process in turn, for SQLite has one write lock; those that wait together share one commit.

A commit waits for the disk while it holds the lock, so whoever comes meanwhile waits for it, then for each that came
before. The first of those that wait does the work of all in one transaction, in the order in which they came: one wait
for the disk, after which each is told. Nobody waits in order to be more, and nobody for much work of others: a
transaction takes no more in after `TOGETHER_SECONDS`, and work that is known to be long has one of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import takewhile
from threading import Event, Lock
from typing import Any, Final

from sqlalchemy import Connection, Engine

from tuneful.errors import UnavailableError

TOGETHER_SECONDS: Final = 0.05
"""After which a transaction takes in no more work; what waits behind it goes into the next one."""

BUSY: Final = "the database is busy: others held it all the time; nothing was changed, ask again in a moment"

INTERRUPTED: Final = "the database: this program was interrupted while it wrote; ask again in a moment"


@dataclass(slots=True, eq=False)
class _Writer:
    """called: when it has the turn, or when its work is over."""

    work: Callable[[Connection], Any]
    alone: bool
    called: Event = field(default_factory=Event)
    result: Any = None
    error: Exception | None = None


class GroupCommit:
    """Turns of the threads that write through one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = Lock()  # of the three below; held for moments only
        self._leader: _Writer | None = None
        self._in_hand: list[_Writer] = []  # whose work is in the leader's transaction
        self._waiting: list[_Writer] = []

    def write(self, work: Callable[[Connection], Any], *, until: float, alone: bool = False) -> Any:
        """What `work` returns, once it is committed; what it raises, once it is undone, and the others' is not.

        until: of the monotonic clock. alone: it takes long, so that no other work shares its transaction.

        Raises UnavailableError when its turn has not come by `until`; nothing is done then. An error of the commit, or
        one with which SQLite undoes the transaction, is that of all whose work was in it. Where the thread that had
        them in hand was interrupted, as by Ctrl-C, that is for this thread alone: the others get UnavailableError.
        """
        mine = _Writer(work, alone)
        try:
            with self._lock:
                self._waiting.append(mine)
                if self._leader is None:
                    self._leader = mine
            if self._leader is not mine:
                self._wait(mine, until)
            if self._leader is mine:
                self._lead(mine)
        except BaseException:
            self._leave(mine)
            raise
        if mine.error is not None:
            raise mine.error
        return mine.result

    def _wait(self, mine: _Writer, until: float) -> None:
        if mine.called.wait(max(0.0, until - time.monotonic())):
            return
        with self._lock:
            if self._leader is mine:
                return
            if mine in self._waiting:
                raise UnavailableError(BUSY)
        mine.called.wait()  # another thread has it in hand

    def _lead(self, mine: _Writer) -> None:
        """The work of the leader, and of those that wait behind it; then the next one leads."""
        with self._lock:
            behind = [] if mine.alone else list(takewhile(lambda one: not one.alone, self._waiting[1:]))
            self._take(mine)
        try:
            with self._engine.begin() as connection:
                ends = time.monotonic() + TOGETHER_SECONDS
                _one_of_several(connection, mine)
                for one in behind:
                    with self._lock:  # some have given up meanwhile
                        takes = one in self._waiting and time.monotonic() < ends
                        if takes:
                            self._take(one)
                    if takes:
                        _one_of_several(connection, one)
        except Exception as error:  # noqa: BLE001 - raised by each, whose threads wait for it
            for one in self._in_hand:
                one.error = error
        with self._lock:
            self._pass_on()

    def _take(self, one: _Writer) -> None:
        self._in_hand.append(one)
        self._waiting.remove(one)

    def _pass_on(self) -> None:
        """Those in hand are told; the first that waits leads."""
        for one in self._in_hand:
            one.called.set()
        self._in_hand = []
        self._leader = self._waiting[0] if self._waiting else None
        if self._leader is not None:
            self._leader.called.set()

    def _leave(self, mine: _Writer) -> None:
        """Whoever gives up, or is interrupted, at whatever place, keeps nobody from going on."""
        with self._lock:
            self._waiting = [one for one in self._waiting if one is not mine and one not in self._in_hand]
            if self._leader is mine:
                for one in self._in_hand:
                    if not one.called.is_set():
                        one.error = UnavailableError(INTERRUPTED)
                self._pass_on()


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
