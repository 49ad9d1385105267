"""Work that pages ask for and `tuneful worker` does: one job to one worker, and none is lost with the worker it was at.

A worker holds a job under a lease that it extends while it works. A worker that is gone extends nothing: its job is
claimed by another. Each claim counts up `attempts`, so a worker that comes back late, when another has the job, has a
number that is not the job's any more and is told so.

A job that ends its workers must end too: `lost` counts the workers in a row that were gone without a word, and a job
with `MOST_LOST` of them has failed. A worker that delivers something begins the count anew, for the next one goes on
behind it, and one that comes back late, as when the database was away, takes itself out of it: it was not the work that
silenced it. One whose work the database refuses, though it is there, counts itself as lost.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from sqlalchemy import Connection, Executable, RowMapping, and_, case, insert, or_, select, update

from tuneful.errors import GoneError, MissingError
from tuneful.feedback import matchups, trail
from tuneful.feedback.items import MANY, next_position, put_item, require_storable_items
from tuneful.feedback.store import Store
from tuneful.feedback.submission import ORDERED
from tuneful.feedback.tables import job, project
from tuneful.records import Candidates, content_hash

State = Literal["waiting", "running", "done", "failed", "stopped"]

LEASE_SECONDS: Final = 60.0
"""How long after its last word a worker counts as gone."""

MOST_LOST: Final = 3
"""Workers in a row that may be lost at one place of a job; one that ends each of them would be begun for ever."""

ADAPT: Final = "adapt"
"""The kind of job that asks for more judgments where an order is unsure (feedback.adaptive)."""

QUALITY: Final = "quality"
"""That measures how well a project is judged; its request names a `group` of people, or None (feedback.quality)."""

WIN_RATES: Final = "win rates"
"""That counts which model people prefer (feedback.win_rates)."""

DATASET: Final = "dataset"
"""That writes a project's dataset and packs it (feedback.dataset_files)."""

LONGEST_MESSAGE: Final = 2000

LAST: Final = 20
"""Jobs of a project that are shown."""

_WITHOUT_REQUEST: Final = tuple(column for column in job.c if column.name != "request")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """done, total: how far it is, in what its kind counts. message: why it failed, or what came of it. rater: who asked
    for it. request: what was asked, as JSON. attempts: how often it was taken. lost: how many of those who took it last
    were gone without a word, or could not do it."""

    id: str
    project: str
    rater: str | None
    kind: str
    request: Mapping[str, Any]
    state: State
    done: int
    total: int
    message: str
    attempts: int
    lost: int
    created_at: float
    finished_at: float | None

    @property
    def is_over(self) -> bool:
        return self.finished_at is not None


def enqueue(
    store: Store, project_id: str, kind: str, request: Mapping[str, Any], *, by: str | None, now: float, total: int = 0
) -> str:
    """The id of a job that waits for a worker: a new one, or one that is not over yet and asks for the same.

    by: the rater who asks for it, None for a program. request: something small; a long one is for `add_job`.
    """
    is_open = (job.c.project == project_id, job.c.kind == kind, job.c.finished_at.is_(None))

    def work(connection: Connection) -> str:
        connection.execute(select(project.c.id).where(project.c.id == project_id).with_for_update(key_share=True))
        for found in connection.execute(select(job.c.id, job.c.request).where(*is_open)):
            if found.request == dict(request):
                return str(found.id)
        return add_job(connection, project_id, kind, request, by=by, now=now, total=total)

    return store.write(work)


def add_job(
    connection: Connection,
    project_id: str,
    kind: str,
    request: Mapping[str, Any],
    *,
    by: str | None,
    now: float,
    total: int = 0,
) -> str:
    """The id of a new job, made in a transaction that does something else too.

    request: up to a megabyte or two; a word of a worker leaves it as it is.
    """
    made = str(uuid.uuid4())
    row = {"id": made, "project": project_id, "rater": by, "kind": kind, "request": dict(request), "total": total}
    connection.execute(insert(job).values(**row, created_at=now))
    about = {"job": made, "kind": kind, "hash": content_hash(request)}
    trail.add(connection, "job asked", project=project_id, rater=by, about=about, now=now)
    return made


def claim(
    store: Store,
    *,
    kinds: Sequence[str] | None = None,
    only: str | None = None,
    now: float,
    lease_seconds: float = LEASE_SECONDS,
) -> Job | None:
    """The job that has waited longest, now in the caller's hands for `lease_seconds`; None when none waits.

    kinds: those that the caller can do; None: all. only: this job and no other.
    """
    free = or_(job.c.state == "waiting", and_(job.c.state == "running", job.c.lease_until <= now))
    query = select(job).where(job.c.finished_at.is_(None), free).order_by(job.c.created_at, job.c.id).limit(1)
    if kinds is not None:
        query = query.where(job.c.kind.in_(kinds))
    if only is not None:
        query = query.where(job.c.id == only)
    with store.read() as connection:  # asked every few seconds, and seldom with anything to write
        if connection.execute(query.with_only_columns(job.c.id)).first() is None:
            return None

    def work(connection: Connection) -> Job | None:
        while (found := connection.execute(query.with_for_update(skip_locked=True)).first()) is not None:
            lost = found.lost + (found.state == "running")
            if lost < MOST_LOST:
                held: dict[str, Any] = {"state": "running", "attempts": found.attempts + 1, "lost": lost}
                changed = update(job).where(job.c.id == found.id).values(lease_until=now + lease_seconds, **held)
                connection.execute(changed)
                return replace(_job(found._mapping, found.request), **held)
            why = f"its worker ended {MOST_LOST} times without a word, as when memory runs out; ask for less at once"
            if found.state == "waiting":
                why = found.message  # of the last one, who could say it
            connection.execute(_ended("failed", why, now).where(job.c.id == found.id))
            _tell_end(connection, found.project, found.id, "failed", now)
        return None

    return store.write(work)


def extend(store: Store, held: Job, *, now: float, lease_seconds: float = LEASE_SECONDS) -> None:
    """Begin the lease anew. Raises GoneError when the job was stopped or another worker has it."""
    store.write(lambda connection: _extend(connection, held, now, lease_seconds))


def report(
    store: Store,
    held: Job,
    done: int,
    total: int,
    *,
    also: Sequence[Executable] = (),
    now: float,
    lease_seconds: float = LEASE_SECONDS,
) -> None:
    """Say how far the job is, and begin the lease anew. Raises GoneError as `extend` does.

    also: statements of what was done, in the same transaction. Lost workers are counted on: who goes on after a crash
    may have to begin at the beginning.
    """

    def work(connection: Connection) -> None:
        _extend(connection, held, now, lease_seconds, done=done, total=total)
        for statement in also:
            connection.execute(statement)

    store.write(work)


def deliver(
    store: Store,
    held: Job,
    items: Sequence[Candidates],
    done: int,
    total: int,
    *,
    overlap: int,
    settings: Mapping[str, Any],
    now: float,
    lease_seconds: float = LEASE_SECONDS,
) -> None:
    """New items, and how far the job is, in one transaction: who goes on after a crash begins with what is not there.

    Nobody is asked about the same texts twice, or which of two equal ones is better; that models gave them is kept all
    the same (feedback.matchups).

    settings: how the completions were sampled. Raises GoneError, and adds nothing, when the job was stopped or another
    worker has it.
    """
    require_storable_items(items)

    def work(connection: Connection) -> None:
        further = case((job.c.done < done, 0), else_=job.c.lost)
        _extend(connection, held, now, lease_seconds, done=done, total=total, lost=further)
        first = next_position(connection, held.project)
        kind = connection.execute(select(project.c.kind).where(project.c.id == held.project)).scalar_one()
        made = []
        for place, given in enumerate(items, start=first):
            if kind in ORDERED and matchups.read_alike(given.completions):
                matchups.keep(connection, held.project, given, now=now)
                continue
            row = {"overlap": overlap, "position": place}
            stored = put_item(connection, held.project, given, row, beside_gold=True, settings=settings, now=now)
            if not stored.is_new:
                matchups.keep(connection, held.project, given, stored.id, stored.completions, now=now)
            made.append(stored)
        ids = [stored.id for stored in made]
        about = {
            "job": held.id,
            "overlap": overlap,
            "items": sum(one.is_new for one in made),
            "hash": content_hash(ids),
        }
        if about["items"]:
            trail.add(connection, "items delivered", project=held.project, about=about, now=now)

    store.write(work, alone=len(items) > MANY)


def finish(store: Store, held: Job, *, message: str = "", now: float) -> None:
    """The job is done. Raises GoneError as `extend` does."""
    store.write(lambda connection: _end(connection, held, "done", message, now))


def fail(store: Store, held: Job, message: str, *, now: float) -> None:
    """The job cannot be done; the message says why, to the lead. Raises GoneError as `extend` does."""
    store.write(lambda connection: _end(connection, held, "failed", message, now))


def give_back(store: Store, held: Job, *, why: str = "") -> None:
    """The job waits again, at once. Whoever took it over meanwhile keeps it.

    why: what kept this worker from doing it, which then counts as a lost one; "": nothing did, and it does not.
    """
    counts = {"lost": job.c.lost + 1, "message": _storable(why)} if why else {}
    waits = update(job).where(_own(held)).values(state="waiting", lease_until=None, **counts)
    taken_over = (job.c.id == held.id, job.c.attempts > held.attempts, job.c.lost > 0, job.c.finished_at.is_(None))

    def work(connection: Connection) -> None:
        if connection.execute(waits).rowcount == 0:
            connection.execute(update(job).where(*taken_over).values(lost=job.c.lost - 1))

    store.write(work)


def stop(store: Store, project_id: str, job_id: str, *, by: str | None = None, now: float) -> None:
    """Nobody works on the job any more; what it has made stays. One that has ended is left as it is. by: the rater who
    stops it, None for a program.

    Raises MissingError when the project has no such job.
    """

    def work(connection: Connection) -> None:
        of_project = (job.c.id == job_id, job.c.project == project_id)
        if connection.execute(select(job.c.id).where(*of_project)).first() is None:
            raise MissingError(f'job "{job_id}": this project has none of that name')
        ended = connection.execute(_ended("stopped", "", now).where(*of_project, job.c.finished_at.is_(None)))
        if ended.rowcount:
            _tell_end(connection, project_id, job_id, "stopped", now, by=by)

    store.write(work)


def jobs(store: Store, project_id: str, *kinds: str, shown: Sequence[str] = ()) -> list[Job]:
    """The newest jobs of some kinds, newest first. shown: the parts of the request that are read."""
    parts = [job.c.request[name].label(f"request_{name}") for name in shown]
    query = select(*_WITHOUT_REQUEST, *parts).where(job.c.project == project_id, job.c.kind.in_(kinds))
    with store.read() as connection:
        rows = connection.execute(query.order_by(job.c.created_at.desc(), job.c.id).limit(LAST)).mappings().all()
    return [_job(row, {name: row[f"request_{name}"] for name in shown}) for row in rows]


def job_of(store: Store, job_id: str) -> Job:
    """How far a job is, without its request. Raises MissingError when there is none."""
    with store.read() as connection:
        row = connection.execute(select(*_WITHOUT_REQUEST).where(job.c.id == job_id)).mappings().first()
    if row is None:
        raise MissingError(f'job "{job_id}": there is none')
    return _job(row, {})


def _own(held: Job) -> Any:
    return and_(job.c.id == held.id, job.c.state == "running", job.c.attempts == held.attempts)


def _ended(state: State, message: str, now: float) -> Any:
    return update(job).values(state=state, message=_storable(message), lease_until=None, finished_at=now)


def _storable(message: str) -> str:
    return message.replace("\x00", " ")[:LONGEST_MESSAGE]


def _end(connection: Connection, held: Job, state: State, message: str, now: float) -> None:
    _require_held(connection.execute(_ended(state, message, now).where(_own(held))))
    _tell_end(connection, held.project, held.id, state, now)


def _tell_end(
    connection: Connection, project_id: str, job_id: str, state: State, now: float, *, by: str | None = None
) -> None:
    """Its message is left out: it may quote a prompt."""
    about = {"job": job_id, "state": state}
    trail.add(connection, "job ended", project=project_id, rater=by, about=about, now=now)


def _extend(connection: Connection, held: Job, now: float, lease_seconds: float, **said: Any) -> None:
    changed = update(job).where(_own(held)).values(lease_until=now + lease_seconds, **said)
    _require_held(connection.execute(changed))


def _require_held(changed: Any) -> None:
    if changed.rowcount == 0:
        raise GoneError("the job was stopped, or another worker has it")


def _job(row: RowMapping, request: Mapping[str, Any]) -> Job:
    return Job(
        id=row["id"],
        project=row["project"],
        rater=row["rater"],
        kind=row["kind"],
        request=request,
        state=row["state"],
        done=row["done"],
        total=row["total"],
        message=row["message"],
        attempts=row["attempts"],
        lost=row["lost"],
        created_at=row["created_at"],
        finished_at=row["finished_at"],
    )
