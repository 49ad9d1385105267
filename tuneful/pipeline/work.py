"""What `tuneful worker` does: it takes jobs of a store, one after the other, and does each as its kind wants it.

    QUICK, LONG   kind of job -> the function that does it
    run_next      take a job that waits and do it
    run_or_wait   do one job here, or wait while a worker does it
    run_held      do a job that was taken
    tend          ask for what projects need without being told

A long job is done in steps that the store keeps, so that whoever takes it after a crash goes on from there. Quick ones
are done before long ones and, since a long one may take a day, in between its steps too.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from threading import Event, Thread
from types import TracebackType
from typing import Final

from tuneful.errors import GoneError, StoreError, TunefulError, UnavailableError
from tuneful.feedback.completions_wanted import KIND as COMPLETIONS
from tuneful.feedback.jobs import (
    ADAPT,
    DATASET,
    LEASE_SECONDS,
    QUALITY,
    WIN_RATES,
    Job,
    claim,
    enqueue,
    extend,
    fail,
    finish,
    give_back,
    job_of,
)
from tuneful.feedback.projects import projects
from tuneful.feedback.store import Store

BEAT: Final = 5.0
"""Seconds between two words of a worker about its job; so soon it notices that the job was stopped."""

LOOK: Final = 2.0
"""Seconds after which a worker with a long job looks for a quick one."""

Clock = Callable[[], float]
Note = Callable[[str], None]


class Held:
    """A job in this worker's hands, whose lease is extended from a thread of its own until the work is over.

    store, job: what is to be done, and where. note: tells whoever watches the worker. meanwhile: what a long job leaves
    room for, every `LOOK` seconds.
    """

    def __init__(
        self,
        store: Store,
        job: Job,
        *,
        note: Note,
        clock: Clock = time.time,
        beat: float = BEAT,
        meanwhile: Callable[[], None] | None = None,
    ) -> None:
        self.store = store
        self.job = job
        self.note = note
        self.clock = clock
        self._meanwhile = meanwhile
        self._looked = clock()
        self._gone = Event()
        self._over = Event()
        self._thread = Thread(target=self._keep, args=(beat,), daemon=True)

    def __enter__(self) -> Held:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def check(self) -> None:
        """Raises GoneError when the job was stopped or another worker has it; to be asked often, between steps."""
        if self._gone.is_set():
            raise GoneError("the job was stopped, or another worker has it")
        if self._meanwhile is not None and self.clock() - self._looked >= LOOK:
            self._meanwhile()
            self._looked = self.clock()

    def confirm(self) -> None:
        """`check`, asked of the store itself: once, before what took long is written. The lease begins anew."""
        extend(self.store, self.job, now=self.clock(), lease_seconds=LEASE_SECONDS)

    def _keep(self, beat: float) -> None:
        while not self._over.wait(beat):
            try:
                extend(self.store, self.job, now=self.clock(), lease_seconds=LEASE_SECONDS)
            except GoneError:
                self._gone.set()
                return
            except StoreError as error:  # busy or away: the lease has time left
                self.note(f"the lease could not be extended: {error}")


Handler = Callable[[Held], str]
"""Does a job, and returns what came of it, for whoever asked."""


def _completions(held: Held) -> str:
    from tuneful.pipeline.asked import answer_job  # brings torch, which a worker without a job does without

    return answer_job(held)


def _adapt(held: Held) -> str:
    from tuneful.feedback.adaptive import adapt  # brings scipy, which a worker without work does without

    return str(adapt(held.store, held.job.project, check=held.confirm, now=held.clock()))


def _quality(held: Held) -> str:
    from tuneful.feedback.quality import keep, measure

    done = measure(held.store, held.job.project, group=held.job.request["group"], now=held.clock())
    held.confirm()
    keep(held.store, held.job.project, done)
    return f"{done.judgments} judgments measured"


def _win_rates(held: Held) -> str:
    from tuneful.feedback.win_rates_kept import count, keep

    done = count(held.store, held.job.project, now=held.clock())
    held.confirm()
    keep(held.store, held.job.project, done)
    return f"{len(done.rates)} pairs of models compared"


def _dataset(held: Held) -> str:
    from tuneful.feedback.dataset_files import write_file

    return write_file(held.store, held.job, clock=held.clock)


LONG: Final[Mapping[str, Handler]] = {COMPLETIONS: _completions}
QUICK: Final[Mapping[str, Handler]] = {
    ADAPT: _adapt,
    QUALITY: _quality,
    WIN_RATES: _win_rates,
    DATASET: _dataset,
}


def run_next(store: Store, *, note: Note, clock: Clock = time.time) -> bool:
    """Take the quick job that waits longest, or else the long one, and do it; False when none waits."""
    if _run_quick(store, note, clock):
        return True
    job = claim(store, kinds=list(LONG), now=clock())
    if job is None:
        return False
    run_held(store, job, LONG[job.kind], note=note, clock=clock, meanwhile=partial(_meanwhile, store, note, clock))
    return True


def _run_quick(store: Store, note: Note, clock: Clock) -> bool:
    job = claim(store, kinds=list(QUICK), now=clock())
    if job is None:
        return False
    run_held(store, job, QUICK[job.kind], note=note, clock=clock)
    return True


def _meanwhile(store: Store, note: Note, clock: Clock) -> None:
    """What projects need, asked for once, and all quick jobs; a database that is away ends no long job by it."""
    try:
        tend(store, clock=clock)
        while _run_quick(store, note, clock):
            pass
    except UnavailableError as error:
        note(str(error))


def run_or_wait(store: Store, job_id: str, *, note: Note, clock: Clock = time.time) -> Job:
    """Do a quick job in this process, or wait until the worker that has it is done; the job as it ended."""
    while not (seen := job_of(store, job_id)).is_over:
        job = claim(store, only=job_id, now=clock())
        if job is None:
            time.sleep(LOOK)
        else:
            run_held(store, job, QUICK[job.kind], note=note, clock=clock)
    return seen


def run_held(
    store: Store,
    job: Job,
    handler: Handler,
    *,
    note: Note,
    clock: Clock = time.time,
    sleep: Callable[[float], None] = time.sleep,
    meanwhile: Callable[[], None] | None = None,
) -> None:
    """Do a job that was claimed. It is finished, failed with a reason, or given back: when this worker is told to end,
    and when the database did not do what was asked, as soon as it is there again. If it was there all the time, as
    where a statement takes too long, this counts as a lost worker, and a pause follows: the job fails if it goes on.

    What was wrong with the job is told to whoever asked, and does not end the worker.
    """
    note(f"{job.kind}: begins, attempt {job.attempts}")
    try:
        with Held(store, job, note=note, clock=clock, meanwhile=meanwhile) as held:
            end, message = _outcome(handler, held)
        end(store, job, message=message, now=clock())
        note(f"{job.kind}: {'failed: ' if end is fail else ''}{message or 'done'}")
    except (GoneError, UnavailableError) as error:
        note(f"{job.kind}: {error}")
        was_away = _give_back_when_it_can(store, job, error, note, sleep)
        if isinstance(error, UnavailableError) and not was_away:
            sleep(BEAT)
    except KeyboardInterrupt:
        with suppress(StoreError):  # away: the lease ends by itself
            give_back(store, job)
        note(f"{job.kind}: given back; the next worker goes on with it")
        raise


def tend(store: Store, *, clock: Clock = time.time) -> bool:
    """Ask for a job that adapts every project whose overlap may grow and whose time it is; whether there was any.

    A job, so that one worker does it, however many look. Raises UnavailableError when the database is away.
    """
    asked = False
    for one in projects(store):
        if not one.most_overlap:
            continue
        from tuneful.feedback.adaptive import is_due  # brings scipy, which a worker without work does without

        if is_due(store, one.id, now=clock()):
            enqueue(store, one.id, ADAPT, {}, by=None, now=clock())
            asked = True
    return asked


def _outcome(handler: Handler, held: Held) -> tuple[Callable[..., None], str]:
    """How the job ends, and what is said of it."""
    try:
        return finish, handler(held)
    except (GoneError, UnavailableError):
        raise
    except TunefulError as error:
        return fail, str(error)
    except Exception as error:  # noqa: BLE001 -- a mistake of ours must not end the worker
        traceback.print_exc()
        return fail, _in_words(error)


def _give_back_when_it_can(
    store: Store, job: Job, error: StoreError, note: Note, sleep: Callable[[float], None]
) -> bool:
    """Whether the database was away. Also a job that was taken meanwhile is given back: this worker lives, so it was
    not the work that silenced it."""
    why, was_away = str(error) if isinstance(error, UnavailableError) else "", False
    while True:
        try:
            give_back(store, job, why="" if was_away else why)
            return was_away
        except UnavailableError as still:
            was_away = True
            note(f"{job.kind}: cannot be given back yet: {still}")
            sleep(BEAT)


def _in_words(error: Exception) -> str:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "the memory was too small for it; take fewer or smaller models, or ask for shorter answers"
    first = str(error).strip().partition("\n")[0]
    return f"a mistake of the program ({type(error).__name__}: {first}); its trace is in the worker's output"
