"""More judgments where the order is unsure, and the items first that are worth most.

An item begins with the overlap it was added with. Once it has that many judgments and its order is not sure, it is
asked of one rater more, up to the project's most. A claim takes items by priority, which is set to how many pairs their
next judgment is expected to put right.

The consensus is fitted outside of any transaction. What it finds is written in short transactions of two hundred
rows, each of which asks of its row, at that moment, what it relies on; so no submit waits long, and one that comes in
between is never undone.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, bindparam, func, select, update

from tuneful.errors import StoreError
from tuneful.feedback import snapshots
from tuneful.feedback.consensus import Consensus, consensus
from tuneful.feedback.criteria import of_one
from tuneful.feedback.decisions import decisions
from tuneful.feedback.gains import Outlook, first_gain, outlooks, wanted
from tuneful.feedback.items import texts_of
from tuneful.feedback.jobs import ADAPT
from tuneful.feedback.projects import Project, find_project, judgments
from tuneful.feedback.settling import standing
from tuneful.feedback.store import Store
from tuneful.feedback.tables import item, job, judgment, snapshot
from tuneful.records import content_hash

KIND: Final = ADAPT
"""Of the snapshots that tell when a project was adapted."""

METHOD: Final = "gains/1"

SETTLED: Final = Outlook(sure=1.0, gain=0.0)
"""What one more judgment is worth of an item that a lead has decided, or whose answers all read the same."""

PER_PAIR: Final = 1000
"""Priorities are whole numbers: thousandths of a pair that is put right."""

AT_ONCE: Final = 200
"""Rows of one transaction: some milliseconds, in which raters wait."""

PAUSE_SECONDS: Final = 0.1
"""After each: a process that waits for SQLite's lock looks again ten times a second, and has to find it free."""

FEWEST: Final = 50
"""New judgments after which it is time, where more items than that are open."""

SHARE: Final = 0.02
"""Of many judgments, so many have to be new: the consensus is fitted of all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapted:
    """judgments: that were read. items: of the project, gold ones apart. unsure: judged and not sure yet, those too of
    which no more may be asked. raised: asked of one rater more from now on. moved: open items with a new priority."""

    judgments: int
    items: int
    unsure: int
    raised: int
    moved: int

    def __str__(self) -> str:
        return (
            f"{self.judgments} judgments: {self.unsure} of {self.items} items are unsure, {self.raised} are asked of "
            f"one more now, {self.moved} have another place in the queue"
        )


def adapt(store: Store, project_id: str, *, check: Callable[[], None] = lambda: None, now: float) -> Adapted:
    """Ask for one more judgment of each full item whose order is unsure, and order the open items by their gain.

    An overlap is only ever raised, by one, and never past the project's `most_overlap`, surplus judgments counted. Gold
    items are left alone, and one that a lead has settled is as sure as can be. Pairs of answers that read the same do
    not count. Priorities that open items were added with are replaced. Nothing is done before somebody has ordered
    something.

    check: called before anything is written; what it raises leaves all as it is.

    Raises MissingError for no project, StoreError for one whose overlap is fixed.
    """
    found = find_project(store, project_id)
    require_grows(found)
    (said, _), items = of_one(judgments(store, found.id), found.criteria), _items(store, found.id)
    inputs = content_hash(*sorted(one.id for one in said))
    if not any(sum(rank is not None for rank in one.ranks) > 1 for one in said):
        done = Adapted(judgments=len(said), items=len(items), unsure=0, raised=0, moved=0)
        check()
        if said:  # else it would be time again at once
            _keep(store, found, done, inputs=inputs, now=now)
        return done
    agreed = consensus(said)
    texts = texts_of(store, found.id)
    apart = tuple(pair for pair in agreed.pairs if texts[pair.first] != texts[pair.second])
    seen = dict.fromkeys((pair.item for pair in agreed.pairs), SETTLED)  # of those with nothing but equal answers
    seen |= outlooks(replace(agreed, pairs=apart))
    seen |= dict.fromkeys(standing(decisions(store, found.id)), SETTLED)
    judged = Counter(one.item for one in said if one.rater_kind != "ai")
    more = wanted(seen, judged, sure=found.sure, most=found.most_overlap)
    full, open_ = _changes(items, agreed, seen, more)
    check()
    done = Adapted(
        judgments=len(said),
        items=len(items),
        unsure=sum(row["id"] in seen and seen[row["id"]].sure < found.sure for row in items),
        raised=_in_parts(store, full, partial(_raise, found.most_overlap)),
        moved=_in_parts(store, open_, _move),
    )
    _keep(store, found, done, inputs=inputs, now=now)
    return done


def require_grows(found: Project) -> None:
    """StoreError for a project whose overlap is fixed."""
    if not found.most_overlap:
        raise StoreError(f'project "{found.name}": its overlap is fixed; say how far it may grow: --most-overlap 6')


def is_due(store: Store, project_id: str, *, now: float) -> bool:
    """Whether the project's overlap may grow, enough judgments have come since the last time, and nobody is at it.

    Enough are `FEWEST`, or `SHARE` of those that were there the last time, whichever is more; or as many as there are
    open items, so that nobody who could help is without work for long. Judgments that were imported with times before
    the last time are not counted, and wait for the next ones, and those with times after `now` until it has come; a job
    that failed is a time as well. To be called now and then by whatever works beside the pages: it costs a few
    milliseconds where it is not yet time.
    """
    found = find_project(store, project_id)
    if not found.most_overlap:
        return False
    with store.read() as connection:
        asked = connection.execute(
            select(job.c.created_at, job.c.finished_at)
            .where(job.c.project == found.id, job.c.kind == ADAPT)
            .order_by(job.c.created_at.desc())
            .limit(1)
        ).first()
        if asked is not None and asked.finished_at is None:
            return False
        last = connection.execute(
            select(snapshot.c.created_at, snapshot.c.judgments)
            .where(snapshot.c.project == found.id, snapshot.c.kind == KIND)
            .order_by(snapshot.c.created_at.desc())
            .limit(1)
        ).first()
        since, had = (0.0, 0) if last is None else (last.created_at, last.judgments)
        since = since if asked is None else max(since, asked.created_at)
        of_project = (judgment.c.project == found.id, ~judgment.c.quiz)
        counts = (*of_project, judgment.c.created_at > since, judgment.c.created_at <= now)
        new = connection.execute(select(func.count()).select_from(judgment).where(*counts)).scalar_one()
        is_open = (item.c.project == found.id, item.c.submitted < item.c.overlap, item.c.gold.is_(None))
        left = connection.execute(select(func.count()).select_from(item).where(*is_open)).scalar_one()
    enough = max(1, min(left, max(FEWEST, round(SHARE * had))))
    return bool(new >= enough)


def _items(store: Store, project_id: str) -> Sequence[RowMapping]:
    """All but gold ones."""
    columns = (item.c.id, item.c.completions, item.c.overlap, item.c.submitted, item.c.priority)
    asked = select(*columns).where(item.c.project == project_id, item.c.gold.is_(None)).order_by(item.c.id)
    with store.read() as connection:
        return connection.execute(asked).mappings().all()


def _changes(
    items: Sequence[RowMapping], agreed: Consensus, seen: Mapping[str, Outlook], more: Container[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Full items that are asked of one more, and open ones that have another priority now, each with it."""
    fresh = {size: first_gain(agreed, size) for size in {len(row["completions"]) for row in items}}
    full, open_ = [], []
    for row in items:
        known = seen.get(row["id"])
        gain = fresh[len(row["completions"])] if known is None else known.gain
        change = {"of": row["id"], "to": round(PER_PAIR * gain)}
        if row["submitted"] == row["overlap"]:
            full += [change] if row["id"] in more else []
        elif change["to"] != row["priority"]:
            open_.append(change)
    return full, open_


def _in_parts(
    store: Store, changes: list[dict[str, Any]], change: Callable[[list[dict[str, Any]], Connection], int]
) -> int:
    """Rows that were changed, in one transaction after another."""
    done = 0
    for start in range(0, len(changes), AT_ONCE):
        if start:
            time.sleep(PAUSE_SECONDS)
        done += store.write(partial(change, changes[start : start + AT_ONCE]))
    return done


def _raise(most: int, changes: list[dict[str, Any]], connection: Connection) -> int:
    """Full items, those that still are, open for one rater more; how many."""
    raised = (
        update(item)
        .where(item.c.id == bindparam("of"), item.c.submitted == item.c.overlap, item.c.overlap < most)
        .values(overlap=item.c.overlap + 1, priority=bindparam("to"))
    )
    return connection.execute(raised, changes).rowcount


def _move(changes: list[dict[str, Any]], connection: Connection) -> int:
    """Open items, those that still are, to their new priority; how many."""
    moved = (
        update(item)
        .where(item.c.id == bindparam("of"), item.c.submitted < item.c.overlap)
        .values(priority=bindparam("to"))
    )
    return connection.execute(moved, changes).rowcount


def _keep(store: Store, of: Project, done: Adapted, *, inputs: str, now: float) -> None:
    """When it was done, of how many judgments, and what came of it."""
    result = asdict(done) | {"most_overlap": of.most_overlap, "sure": of.sure}
    snapshots.keep(store, of.id, KIND, method=METHOD, judgments=done.judgments, result=result, inputs=inputs, now=now)
