"""kill -9 while labelers work: what was answered for is there, nothing twice, no item past its overlap."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from sqlalchemy import func, select

from tests.feedback.store.people import within_overlap
from tuneful.feedback.assignment import LEASE_SECONDS, claim
from tuneful.feedback.items import add_items
from tuneful.feedback.projects import add_rater, create_project, judgments, progress
from tuneful.feedback.store import Store
from tuneful.feedback.tables import assignment, item
from tuneful.records import Candidates, Completion, Prompt

PROGRAM = Path(__file__).with_name("labelers_program.py")
KILLS, OVERLAP = 10, 2


def test_nothing_lost_nothing_double(store: Store, url: str) -> None:
    project = create_project(store, "helpful", now=0.0)
    answers = (Completion("yes", id="yes"), Completion("no", id="no"))
    add_items(store, project, [Candidates(Prompt(str(k)), answers) for k in range(5_000)], overlap=OVERLAP, now=0.0)
    raters = [add_rater(store, project, now=0.0) for _ in range(4)]
    chance = random.Random(0)
    acknowledged: list[tuple[str, str]] = []
    for _ in range(KILLS):
        # Drawn before anything is asked: so many receipts, and then a while.
        receipts, delay = chance.randint(12, 30), chance.uniform(0.0, 0.1)
        command = [sys.executable, str(PROGRAM), url, project, *raters]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(receipts)]
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.readlines()
        assert process.returncode == -signal.SIGKILL
        acknowledged += [(line.split()[0], line.split()[1]) for line in lines if line.endswith("\n")]

    stored = {one.id: one for one in judgments(store, project)}
    assert len(acknowledged) >= 100
    assert [name for name, _ in acknowledged if name not in stored] == []
    assert len({name for name, _ in acknowledged}) == len(acknowledged)
    assert max(Counter((one.item, one.rater) for one in stored.values()).values()) == 1
    assert max(Counter(item_id for item_id, _ in within_overlap(store, project)).values()) <= OVERLAP
    assert progress(store, project).have == len(within_overlap(store, project))
    with store.read() as connection:
        if store.dialect == "sqlite":
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
        counted = select(assignment.c.item, func.count().label("num")).where(assignment.c.state == "submitted")
        by_item = counted.group_by(assignment.c.item).subquery()
        wrong = select(item.c.id).outerjoin(by_item, by_item.c.item == item.c.id)
        wrong = wrong.where(item.c.submitted != func.coalesce(by_item.c.num, 0))
        assert connection.execute(wrong).first() is None

    later = time.time() + LEASE_SECONDS + 1
    for rater in raters:
        given = claim(store, project, rater, now=later)
        assert given is not None
        assert given.lease_until > later
    with store.read() as connection:
        live = select(assignment.c.id).where(assignment.c.state == "live", assignment.c.lease_until <= later)
        assert connection.execute(live).first() is None
