"""A database of judgments: opened, brought to the newest form, and changed in transactions that hold or never were.

SQLite by default, PostgreSQL by URL. What is answered for is on disk: SQLite writes its log through to the disk at each
commit (WAL, synchronous=FULL), and takes the write lock when a transaction begins, for one that reads first and locks
later fails at once where it should wait (docs/decisions/0012).
"""

from __future__ import annotations

import random
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, Table, create_engine, event, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from tuneful.errors import StoreError, UnavailableError
from tuneful.feedback.group_commit import BUSY, GroupCommit

T = TypeVar("T")

MIGRATIONS: Final = Path(__file__).parent / "migrations"

ATTEMPTS: Final = 8
"""How often a transaction is tried that another one was in the way of."""

LOCK_SECONDS: Final = 5.0
"""How long a transaction waits for a lock before it gives up an attempt."""

PATIENCE: Final = 10.0
"""Seconds after which no further attempt is begun. Who asks is told then, and asks again: a page gives up after 15 s,
and a server whose threads all wait for one lock answers nobody."""

_IN_THE_WAY: Final = ("40001", "40P01", "55P03", "23505")
"""PostgreSQL's codes for a serialization failure, a deadlock, a lock that could not be had, and a row that another
transaction made in the same moment, which is there when it is tried again."""

_NO_ROOM: Final = ("53100", "database or disk is full", "disk I/O error")
"""What PostgreSQL and SQLite say of a disk that is full; of a limit on the size of files SQLite says the last."""

_MIGRATING: Final = 7_046_118_235
"""Number of PostgreSQL's lock that one migration holds, so that programs which start at once take turns."""


class Store:
    """Connections to one database. Safe to share among threads; each transaction has a connection of its own."""

    def __init__(self, engine: Engine) -> None:
        """Use `Store.open`. is_new: it was made then, and held nothing before."""
        self._engine = engine
        whole = {"isolation_level": "REPEATABLE READ"} if engine.dialect.name == "postgresql" else {}
        self._reader = engine.execution_options(**whole)
        self._writer = engine.execution_options(writes=True)
        self._snapshot: Connection | None = None
        self.is_new = False
        # SQLite's own waiting is polling, with pauses of up to a tenth of a second; PostgreSQL groups commits itself.
        self._turns = GroupCommit(self._writer) if engine.dialect.name == "sqlite" else None

    @classmethod
    def open(cls, url: str | Path, *, make: bool = True) -> Store:
        """The store at a path (SQLite) or a database URL, made if it is not there, and migrated if it is older.

        make: False refuses a file that is not there. Raises StoreError when the database cannot be reached or read, or
        is newer than this version of tuneful.
        """
        place = _url(url)
        if place.get_backend_name() == "sqlite" and place.database:
            _prepare_file(Path(place.database), make=make)
        engine = create_engine(place, connect_args=_connect_args(place), pool_pre_ping=True)
        if place.get_backend_name() == "sqlite":
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
        else:
            event.listen(engine, "connect", _prepare_postgresql)
        store = cls(engine)
        try:
            store.is_new = store.write(_migrate)
        except UnavailableError as error:
            engine.dispose()
            raise UnavailableError(f"{place.render_as_string()}: {error}") from error
        except (DBAPIError, CommandError) as error:
            engine.dispose()
            raise StoreError(f"{place.render_as_string()}: {_told(error)}") from error
        return store

    def close(self) -> None:
        self._engine.dispose()

    def __str__(self) -> str:
        """The place, without its password."""
        url = self._engine.url
        return str(url.database) if url.get_backend_name() == "sqlite" else url.render_as_string()

    @property
    def dialect(self) -> str:
        """ "sqlite" or "postgresql"."""
        return self._engine.dialect.name

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One snapshot: what others commit meanwhile is not seen. Raises UnavailableError as `write` does."""
        if self._snapshot is not None:
            yield self._snapshot
            return
        try:
            with _told_apart(), self._reader.begin() as connection:
                yield connection
        except DBAPIError as error:
            if not _was_in_the_way(error):
                raise
            raise UnavailableError(BUSY) from error

    @contextmanager
    def snapshot(self) -> Iterator[Store]:
        """This store at one moment: whatever is read of it inside is of the same snapshot. For one thread.

        What is written meanwhile, also through it, is not seen. Raises as `read` does.
        """
        with self.read() as connection:
            then = copy(self)
            then._snapshot = connection
            yield then

    def write(self, work: Callable[[Connection], T], *, alone: bool = False) -> T:
        """`work` in one transaction, from the beginning again while another transaction is in its way.

        alone: it may take long, so that nothing that others write shares its transaction (feedback.group_commit).

        Raises UnavailableError when it was in the way for too long, and when the disk is full or the database away;
        nothing is changed then.
        """
        until = time.monotonic() + PATIENCE
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with _told_apart():
                    return self._commit(work, until, alone=alone)
            except DBAPIError as error:
                if not _was_in_the_way(error) or (isinstance(error, IntegrityError) and attempt > 1):
                    raise
                if attempt == ATTEMPTS or time.monotonic() > until:
                    raise UnavailableError(BUSY) from error
            time.sleep(random.uniform(0, 0.01 * 2**attempt))
        raise AssertionError("unreachable")

    def _commit(self, work: Callable[[Connection], T], until: float, *, alone: bool) -> T:
        if self._turns is not None:
            return cast(T, self._turns.write(work, until=until, alone=alone))
        with self._writer.begin() as connection:
            return work(connection)


def upsert(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """An INSERT in the words of the connection's database, of which both know ON CONFLICT."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def require_storable(text: str, what: str) -> None:
    """StoreError for a text that a database cannot hold: a NUL (PostgreSQL), half of a surrogate pair (either)."""
    if "\x00" in text:
        raise StoreError(f"{what}: holds a NUL character, which databases cannot keep; replace it")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise StoreError(f"{what}: holds half a character at {error.start}; replace it") from None


def require_name(text: str, what: str, *, longest: int) -> None:
    """StoreError for a name of more characters than that, or one that no line could show."""
    require_storable(text, what)
    if len(text) > longest:
        raise StoreError(f"{what}: {len(text)} characters; give it {longest} at most")
    if any(unicodedata.category(one) == "Cc" for one in text):
        raise StoreError(f"{what}: {text[:40]!a} holds a control character, such as the end of a line; take it out")


@contextmanager
def _told_apart() -> Iterator[None]:
    """Errors of the database as errors of ours: it is away or full, or cannot hold what was given.

    What a transaction in the way says, and a rule of the tables that was broken, go on as they are.
    """
    try:
        yield
    except DataError as error:
        raise StoreError(f"the database cannot hold it: {_told(error)}") from error
    except UnicodeEncodeError as error:
        raise StoreError("the database cannot hold half a character; replace it") from error
    except PoolTimeoutError as error:
        raise UnavailableError("too much is asked at once; ask again in a moment") from error
    except (OperationalError, InternalError, InterfaceError) as error:
        if _was_in_the_way(error):
            raise
        raise UnavailableError(f"{_what_fails(error)}; nothing was changed") from error


def _url(url: str | Path) -> URL:
    if isinstance(url, Path) or "://" not in url:
        return URL.create("sqlite", database=str(url))
    place = make_url(url)
    if place.get_backend_name() == "postgresql" and place.drivername == "postgresql":
        place = place.set(drivername="postgresql+psycopg")
    if place.get_backend_name() not in ("sqlite", "postgresql"):
        raise StoreError(f"{place.render_as_string()}: a store is a path, sqlite:///PATH or postgresql://…")
    return place


def _prepare_file(path: Path, *, make: bool) -> None:
    """A new file is for its owner alone: it will hold the hashes of passwords."""
    if path.exists():
        return
    if not make:
        raise StoreError(f"{path}: there is no such store; give the --store of one, or make it with label create")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)


def _connect_args(place: URL) -> dict[str, Any]:
    return {"timeout": LOCK_SECONDS} if place.get_backend_name() == "sqlite" else {}


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself; `_begin_sqlite` does
    cursor = connection.cursor()
    for setting in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {setting}")
    cursor.close()


def _prepare_postgresql(connection: Any, _record: object) -> None:
    connection.execute(f"SET lock_timeout = {int(1000 * LOCK_SECONDS)}")  # milliseconds; it would wait for ever
    connection.commit()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _was_in_the_way(error: DBAPIError) -> bool:
    code = getattr(error.orig, "sqlstate", None)
    if code is not None:
        return code in _IN_THE_WAY
    return isinstance(error, OperationalError) and "database is locked" in str(error.orig)


def _what_fails(error: DBAPIError) -> str:
    told = _told(error)
    if getattr(error.orig, "sqlstate", None) in _NO_ROOM or any(said in told for said in _NO_ROOM):
        return f"the disk of the database is full or fails ({told}); make room on it"
    return f"the database: {told}"


def _migrate(connection: Connection) -> bool:
    """Bring the tables to the newest form, all steps in one transaction. Whether there were none before."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_MIGRATING)))
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    scripts = ScriptDirectory.from_config(config)
    found = MigrationContext.configure(connection).get_current_revision()
    if found is not None and found not in {script.revision for script in scripts.walk_revisions()}:
        raise StoreError(f'its tables are of revision "{found}", which this version does not know; update tuneful')
    command.upgrade(config, "head")
    return found is None


def _told(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0]
