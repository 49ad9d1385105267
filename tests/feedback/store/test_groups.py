"""What people say they are: one group however it is written, those who were removed among them."""

from __future__ import annotations

import pytest

from tests.feedback.store.people import judge, project_of
from tuneful.errors import StoreError
from tuneful.feedback.access import accept, invite
from tuneful.feedback.members import remove_member
from tuneful.feedback.pages import groups_of
from tuneful.feedback.projects import LONGEST_INSTRUCTIONS, add_rater, publish_instructions
from tuneful.feedback.store import Store


def test_a_group_is_one_in_small_and_in_large_letters(store: Store) -> None:
    project, _ = project_of(store)
    given = [["nurse", "Day shift"], ["Nurse", "nurse"], ["nurse"], ["NURSE", "day shift"], []]
    people = [
        accept(store, invite(store, project_id=project, now=0.0), login=f"p{n}", password="a" * 12, groups=own, now=0.0)
        for n, own in enumerate(given)
    ]
    expected = [["nurse", "Day shift"], ["nurse"], ["nurse"], ["nurse", "Day shift"], []]
    assert groups_of(store, project) == dict(zip(people, expected, strict=True))


def test_a_removed_labeler_s_words_are_still_of_their_group(store: Store) -> None:
    project, _ = project_of(store)
    rater = judge(store, project, ranks=(1, 2, 3))
    idle = add_rater(store, project, now=0.0)
    for one in (rater, idle):
        remove_member(store, project, one, now=1.0)
    assert groups_of(store, project).keys() == {rater}


def test_instructions_that_nobody_could_read_are_refused(store: Store) -> None:
    project, _ = project_of(store)
    publish_instructions(store, project, "a" * LONGEST_INSTRUCTIONS, now=0.0)
    with pytest.raises(StoreError, match="100,001 characters; give 100,000 at most"):
        publish_instructions(store, project, "b" * (LONGEST_INSTRUCTIONS + 1), now=0.0)
