"""The trail of what leads did: it tells of everything they change, and no event can be changed or taken out unseen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, delete, insert, select, update

from tests.architecture.test_trail import acts
from tests.feedback.store.people import judge, project_of
from tuneful.feedback import trail
from tuneful.feedback.access import accept, erase, invite, join, make_token
from tuneful.feedback.backup import back_up, restore
from tuneful.feedback.decisions import decide, make_gold
from tuneful.feedback.gold import Gold
from tuneful.feedback.identities import Proof, come_in, link, unlink
from tuneful.feedback.items import add_gold, add_items
from tuneful.feedback.jobs import claim, deliver, enqueue, finish, stop
from tuneful.feedback.members import open_invitations, remove_member, take_back
from tuneful.feedback.projects import (
    add_member,
    create_project,
    find_project,
    publish_instructions,
    set_overlap,
    set_quiz,
)
from tuneful.feedback.recording import record_in_named
from tuneful.feedback.settling import Decision
from tuneful.feedback.store import Store
from tuneful.feedback.tables import event
from tuneful.feedback.versions import export_dataset
from tuneful.records import Candidates, Completion, Judgment, Prompt

SETTINGS: dict[str, Any] = {"overlap": 2, "settings": {}}

PASSWORD = "correct horse battery"


def filled(store: Store, events: int = 5) -> None:
    for number in range(events):
        create_project(store, f"project {number}", now=float(number))


def rows(store: Store) -> list[dict[str, Any]]:
    with store.read() as connection:
        found = connection.execute(select(event).order_by(event.c.number)).mappings().all()
    return [dict(row) for row in found]


def test_an_event_s_hash_is_that_of_its_row_and_of_the_hash_before(store: Store) -> None:
    """Written down here a second time: JSON with sorted keys and no spaces, then SHA-256."""
    filled(store, 2)
    previous = 64 * "0"
    for row in rows(store):
        assert row["previous"] == previous
        told = {name: value for name, value in row.items() if name != "hash"}
        canonical = json.dumps(told, sort_keys=True, separators=(",", ":"))
        previous = hashlib.sha256(canonical.encode()).hexdigest()
        assert row["hash"] == previous
    assert trail.check(store) == trail.Trail(head=previous, count=2, broken=None)
    assert trail.head(store) == (2, previous)


def test_before_there_is_an_event_the_trail_is_whole(store: Store) -> None:
    assert trail.check(store) == trail.Trail(head=64 * "0", count=0, broken=None)
    assert trail.holds(store, *trail.head(store))


def renumbered(connection: Connection) -> None:
    connection.execute(delete(event).where(event.c.number == 3))
    for number in (4, 5):
        connection.execute(update(event).where(event.c.number == number).values(number=number - 1))


def exchanged(connection: Connection) -> None:
    for number, other in ((3, 99), (4, 3), (99, 4)):
        connection.execute(update(event).where(event.c.number == number).values(number=other))


def invented(connection: Connection) -> None:
    last = connection.execute(select(event).where(event.c.number == 5)).mappings().one()
    row = {**last, "number": 6, "previous": last["hash"], "what": "invented"}
    connection.execute(insert(event).values(**row))


def changed(**values: Any) -> Callable[[Connection], Any]:
    return lambda connection: connection.execute(update(event).where(event.c.number == 3).values(**values))


@pytest.mark.parametrize(
    ("tamper", "broken"),
    [
        (changed(what="nothing"), 3),
        (changed(about={"name": "another"}), 3),
        (changed(created_at=2.5), 3),
        (changed(project=None), 3),
        (changed(hash=64 * "a"), 3),
        (changed(previous=64 * "a"), 3),
        (lambda connection: connection.execute(delete(event).where(event.c.number == 3)), 3),
        (lambda connection: connection.execute(delete(event).where(event.c.number == 1)), 1),
        (renumbered, 3),
        (exchanged, 3),
        (invented, 6),
    ],
    ids=["what", "about", "time", "project", "hash", "previous", "gone", "first gone", "renumbered", "swapped", "new"],
)
def test_what_somebody_changed_in_the_table_is_found(
    store: Store, tamper: Callable[[Connection], Any], broken: int
) -> None:
    filled(store)
    store.write(tamper)
    assert trail.check(store).broken == broken


def test_a_trail_written_anew_is_whole_and_another_one(store: Store) -> None:
    """Whoever can write the database can make a new trail; they cannot make what was written down before fit it."""
    filled(store)
    number, head = trail.head(store)
    store.write(lambda connection: connection.execute(delete(event)))
    assert not trail.holds(store, number, head)
    for n in range(5):
        store.write(lambda connection, n=n: trail.add(connection, "project made", about={}, now=float(n)))
    assert trail.check(store).broken is None
    assert not trail.holds(store, number, head)


def test_many_at_once_make_one_chain(store: Store) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: create_project(store, f"project {n}", now=float(n)), range(40)))
    found = trail.check(store)
    assert (found.count, found.broken) == (40, None)
    assert {row["about"]["name"] for row in rows(store)} == {f"project {n}" for n in range(40)}


def test_what_failed_leaves_no_event(store: Store) -> None:
    def work(connection: Connection) -> None:
        trail.add(connection, "project made", about={}, now=0.0)
        raise KeyError("half way")

    with pytest.raises(KeyError):
        store.write(work)
    assert trail.check(store).count == 0


def test_everything_that_leads_change_is_told_and_nothing_personal(store: Store, tmp_path: Path) -> None:
    project, (item, _) = project_of(store)
    add_items(store, project, [], overlap=2, now=1.0)  # nothing, so nothing is told
    secret = invite(store, project_id=project, role="lead", now=1.0)
    ada = accept(store, secret, login="ada@example.org", password=PASSWORD, name="Ada Lovelace", groups=["x"], now=1.0)
    other = create_project(store, "other", criteria=("helpful",), by=ada, now=1.0)
    add_member(store, other, ada, role="lead", by=ada, now=1.0)
    publish_instructions(store, project, "Be kind.", by=ada, now=1.0)
    publish_instructions(store, project, "Be kind.", by=ada, now=1.0)  # the same, so no version
    judged = judge(store, project, ranks=(1, 2, 3))
    decide(store, item, by=ada, ranks=(1, 2, 3), why="It is so.", now=1.0)
    make_gold(store, item, by=ada, why="", now=1.0)
    known = Gold(Candidates(Prompt("known"), (Completion("a", id="a"), Completion("b", id="b"))), ranks=(1, 2))
    add_gold(store, project, [known], by=ada, now=1.0)
    set_quiz(store, project, quiz=1, by=ada, now=1.0)
    set_overlap(store, project, most=5, sure=0.9, by=ada, now=1.0)
    set_overlap(store, project, most=5, sure=0.9, by=ada, now=1.0)  # the same, so nothing is set
    about = Judgment(
        id="1",
        item="elsewhere",
        prompt=known.candidates.prompt.id,
        completions=("a", "b"),
        rater="bo",
        rater_kind="simulated",
        ranks=(1, 2),
        criterion="helpful",
    )
    settled = Decision(
        id="2",
        item="elsewhere",
        prompt=about.prompt,
        completions=("a", "b"),
        criterion="helpful",
        rater="cy",
        ranks=(1, 1),
    )
    record_in_named(store, find_project(store, other).name, [known.candidates], [about], [settled], by=ada, now=1.0)
    export_dataset(store, project, tmp_path / "data", by=ada, now=1.0)
    make_token(store, ada, "Ada's laptop", ["read"], days=1, now=1.0)
    join(store, invite(store, project_id=other, by=ada, now=1.0), ada, now=1.0)
    stop(store, project, enqueue(store, project, "answers", {}, by=ada, now=1.0), by=ada, now=1.0)
    enqueue(store, project, "answers", {}, by=ada, now=1.0)
    held = claim(store, now=1.0)
    assert held is not None
    deliver(store, held, [Candidates(Prompt("new"), known.candidates.completions)], 1, 1, **SETTINGS, now=1.0)
    deliver(store, held, [Candidates(Prompt("new"), known.candidates.completions)], 1, 1, **SETTINGS, now=1.0)
    finish(store, held, message="Ada Lovelace's prompts are done", now=1.0)
    proof = Proof(
        issuer="https://id.example", subject="person-101", login="", name="", domain="example.org", state="a", until=9.0
    )
    link(store, ada, proof, now=1.0)
    link(store, ada, replace(proof, state="b"), now=1.0)  # the same, so nothing is linked
    unlink(store, ada, proof.issuer, now=1.0)
    unlink(store, ada, proof.issuer, now=1.0)  # nothing is left to unlink
    come_in(store, replace(proof, state="c"), strangers=True, now=1.0)
    invite(store, project_id=project, by=ada, now=1.0)
    take_back(store, project, open_invitations(store, project, now=1.0)[0].id, by=ada, now=1.0)
    remove_member(store, project, judged, by=ada, now=1.0)
    erase(store, ada, by=ada, now=1.0)
    assert [row["what"] for row in rows(store)] == [
        *("project made", "items added"),
        *("invitation made", "invitation used", "project made", "role given", "instructions published", "role given"),
        *(
            "item decided",
            "gold answer set",
            "items added",
            "quiz set",
            "overlap set",
            "judgments recorded",
            "decisions recorded",
        ),
        *("dataset written", "token made"),
        *("invitation made", "invitation used", "job asked", "job ended", "job asked", "items delivered", "job ended"),
        *("identity linked", "identity unlinked", "identity linked", "account made"),
        *("invitation made", "invitation taken back", "member removed", "account erased"),
    ]
    assert {row["what"] for row in rows(store)} == acts() - {"restored"}  # the next test's
    (stranger,) = {row["rater"] for row in rows(store)} - {None, ada}
    assert [row["what"] for row in rows(store) if row["rater"] == stranger] == ["identity linked", "account made"]
    assert trail.check(store).broken is None
    told = json.dumps(rows(store))
    assert not any(word in told for word in ("Lovelace", "example.org", "laptop", secret, "person-101"))


def test_a_restored_store_goes_on_with_its_trail(store: Store, tmp_path: Path) -> None:
    project, (item, _) = project_of(store)
    judge(store, project, ranks=(1, 2, 3))
    lead = judge(store, project, ranks=(1, 2, 3))
    made = None
    for _ in range(3):
        made = decide(store, item, by=lead, ranks=(1, 2, 3), replaces=made, now=1.0)
    number, head = trail.head(store)
    back_up(store, tmp_path / "copy.db")
    other = Store.open(tmp_path / "other.db")
    restore(tmp_path / "copy.db", other, now=5.0)
    assert trail.holds(other, number, head)
    assert trail.check(other).broken is None
    assert [one.what for one in trail.events(other, last=2)] == ["item decided", "restored"]
    other.close()


def test_events_of_a_project_are_its_own_and_the_newest(store: Store) -> None:
    one, other = (create_project(store, name, now=0.0) for name in ("one", "other"))
    for number in range(4):
        publish_instructions(store, one, f"version {number}", now=float(number))
    publish_instructions(store, other, "version 0", now=9.0)
    found = trail.events(store, one, last=3)
    assert [(event.what, event.about["version"], event.at) for event in found] == [
        ("instructions published", 2, 1.0),
        ("instructions published", 3, 2.0),
        ("instructions published", 4, 3.0),
    ]
    assert len(trail.events(store)) == 7
