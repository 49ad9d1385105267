"""Members leave, invitations are taken back, and nothing that was judged is lost by it."""

from __future__ import annotations

import uuid

import pytest

from tests.feedback.store.people import judge, project_of
from tuneful.errors import AccessError, MissingError, StoreError
from tuneful.feedback.access import accept, invite, invited
from tuneful.feedback.assignment import claim
from tuneful.feedback.members import open_invitations, remove_member, take_back
from tuneful.feedback.pages import labelers
from tuneful.feedback.projects import add_member, add_rater, judgments, progress
from tuneful.feedback.store import Store
from tuneful.feedback.submission import Said, submit

SAID = {"ranks": (1, 2, 3), "flags": {}, "values": {}, "criterion": "helpful"}


def test_what_a_removed_labeler_held_goes_to_others_and_what_they_said_stays(store: Store) -> None:
    project, items = project_of(store, 2, overlap=1)
    rater = add_rater(store, project, now=0.0)
    first = claim(store, project, rater, now=1.0)
    assert first is not None
    submit(store, first.id, rater, Said(id=str(uuid.uuid4()), **SAID), now=1.0)
    held = claim(store, project, rater, now=1.0)
    assert held is not None
    remove_member(store, project, rater, now=2.0)
    with pytest.raises(AccessError, match="is no member of it"):
        claim(store, project, rater, now=2.0)
    with pytest.raises(AccessError, match="no member of this project any more"):
        submit(store, held.id, rater, Said(id=str(uuid.uuid4()), **SAID), now=2.0)
    assert [one.rater for one in judgments(store, project)] == [rater]
    assert [(one.rater, one.role, one.judged) for one in labelers(store, project)] == [(rater, "removed", 1)]
    other = judge(store, project, ranks=(3, 2, 1))  # at once: the lease of the removed one is not waited for
    assert {one.item: one.rater for one in judgments(store, project)} == {first.item: rater, held.item: other}
    assert progress(store, project).done == len(items)


def test_an_answer_that_was_lost_is_told_again_to_who_was_removed_since(store: Store) -> None:
    project, _ = project_of(store, 1, overlap=1)
    rater = add_rater(store, project, now=0.0)
    held = claim(store, project, rater, now=1.0)
    assert held is not None
    said = Said(id=str(uuid.uuid4()), **SAID)
    submit(store, held.id, rater, said, now=1.0)
    remove_member(store, project, rater, now=2.0)
    assert submit(store, held.id, rater, said, now=3.0).again


def test_whoever_comes_again_is_asked_nothing_twice(store: Store) -> None:
    project, items = project_of(store, 2, overlap=2)
    rater = judge(store, project, ranks=(1, 2, 3))
    remove_member(store, project, rater, now=2.0)
    add_member(store, project, rater, role="labeler", now=3.0)
    assert claim(store, project, rater, now=4.0) is None
    assert [(one.role, one.judged) for one in labelers(store, project)] == [("labeler", len(items))]


def test_nobody_removes_themselves_or_who_is_not_there(store: Store) -> None:
    project, _ = project_of(store)
    elsewhere, _ = project_of(store)
    lead = add_rater(store, project, role="lead", now=0.0)
    stranger = add_rater(store, elsewhere, now=0.0)
    with pytest.raises(StoreError, match="you cannot remove yourself"):
        remove_member(store, project, lead, by=lead, now=1.0)
    with pytest.raises(MissingError, match="is no member of the project"):
        remove_member(store, project, stranger, by=lead, now=1.0)
    assert claim(store, elsewhere, stranger, now=1.0) is not None
    assert [one.role for one in labelers(store, project)] == ["lead"]


def test_an_invitation_that_was_taken_back_opens_nothing(store: Store) -> None:
    project, _ = project_of(store)
    elsewhere, _ = project_of(store)
    first, used, over = (invite(store, project_id=project, now=now) for now in (5.0, 6.0, -1e9))
    kept = invite(store, project_id=project, role="lead", now=7.0)
    invite(store, project_id=elsewhere, now=5.0)
    accept(store, used, login="bo", password="correct horse", now=6.0)
    one, two = open_invitations(store, project, now=8.0)
    assert (one.role, two.role) == ("labeler", "lead")
    assert (one.until < two.until, over in (one.id, two.id)) == (True, False)
    with pytest.raises(MissingError, match="it was used, or taken back already"):
        take_back(store, elsewhere, one.id, now=8.0)
    take_back(store, project, one.id, now=8.0)
    with pytest.raises(MissingError, match="it was used, or taken back already"):
        take_back(store, project, one.id, now=8.0)
    with pytest.raises(AccessError, match="is unknown"):
        invited(store, first, now=8.0)
    assert invited(store, kept, now=8.0).role == "lead"
    assert open_invitations(store, project, now=8.0) == [two]
