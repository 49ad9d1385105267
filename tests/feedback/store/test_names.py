"""Names and texts that a page could not show are refused, with what is wrong; the longest that are allowed go in."""

from __future__ import annotations

import pytest

from tuneful.errors import StoreError
from tuneful.feedback.access import accept, invite_first_admin
from tuneful.feedback.projects import create_project, find_project, publish_instructions
from tuneful.feedback.store import Store


def test_the_longest_names_go_in_and_one_more_character_does_not(store: Store) -> None:
    made = create_project(store, "n" * 120, criteria=("c" * 80,), now=0.0)
    assert find_project(store, "n" * 120).id == made
    with pytest.raises(StoreError, match="project name: 121 characters; give it 120 at most"):
        create_project(store, "n" * 121, now=0.0)
    with pytest.raises(StoreError, match="criterion: 81 characters; give it 80 at most"):
        create_project(store, "other", criteria=("c" * 81,), now=0.0)
    secret = invite_first_admin(store, now=0.0)
    assert secret is not None
    with pytest.raises(StoreError, match="group: 81 characters; give it 80 at most"):
        accept(store, secret, login="ada", password="correct horse", groups=["g" * 81], now=1.0)
    accept(store, secret, login="ada", password="correct horse", groups=["g" * 80], now=1.0)


@pytest.mark.parametrize("character", ["\n", "\t", "\x1b", "\x7f", "\x85"])
def test_control_characters_are_refused(store: Store, character: str) -> None:
    with pytest.raises(StoreError, match=r"project name: .* holds a control character"):
        create_project(store, f"a{character}b", now=0.0)
    with pytest.raises(StoreError, match=r"criterion: .* holds a control character"):
        create_project(store, "a", criteria=(f"a{character}b",), now=0.0)


@pytest.mark.parametrize("text", ["", "   ", " \n\t\n"])
def test_instructions_of_nothing_are_refused(store: Store, text: str) -> None:
    made = create_project(store, "a", now=0.0)
    with pytest.raises(StoreError, match="instructions: there is no text"):
        publish_instructions(store, made, text, now=1.0)
