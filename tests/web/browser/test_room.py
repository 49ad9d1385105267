"""Whether there is room to read: how much of a window is left to long answers between the question and the bar."""

from __future__ import annotations

from typing import Any

import pytest

from tests.web.browser.test_labeling_page import press, start
from tests.web.conftest import ANSWERS
from tuneful.feedback.items import add_items
from tuneful.records import Candidates, Completion, Prompt

LONG = tuple(f"{text} " + "It costs nothing. " * 120 for text in ANSWERS)
QUESTION = "My house is too hot in summer. " * 60


def height_of(page: Any, selector: str) -> float:
    return float(page.locator(selector).bounding_box()["height"])


def project_of(site: Any, answers: int) -> str:
    made: str = site.project(items=0)
    offered = tuple(Completion(text, id=f"{answers} {n}") for n, text in enumerate(LONG[:answers]))
    add_items(site.store, made, [Candidates(Prompt.user(QUESTION), offered)], overlap=1, now=site.now())
    return made


@pytest.mark.parametrize("answers", [4, 9])
@pytest.mark.parametrize("keys", ["", "a", "a = b = c = d"])
def test_three_fifths_of_a_window_are_for_answers(site: Any, page: Any, answers: int, keys: str) -> None:
    """The bar below takes a quarter at most, however the chips stand."""
    start(site, page, project_of(site, answers))
    press(page, keys)
    window = page.viewport_size["height"]
    bar, question = height_of(page, "#verdict"), height_of(page, "#prompt")
    assert bar <= window / 4
    assert window - bar - question >= 0.6 * window
    chips = page.eval_on_selector_all(".chip", "all => all.map((one) => Math.round(one.getBoundingClientRect().y))")
    assert len(chips) == answers
    assert len(set(chips)) == 1


def test_text_of_nine_answers_is_seen_at_once(site: Any, page: Any) -> None:
    start(site, page, site.project(answers=9, texts=LONG))
    page.locator("#cards .text").first.wait_for()
    bar = page.locator("#verdict").bounding_box()["y"]
    text = page.locator("#cards .text").first.bounding_box()["y"]
    assert bar - text >= 0.3 * page.viewport_size["height"]


def test_letters_stay_in_view_on_a_telephone(site: Any, page: Any) -> None:
    """Below the question, which stays too; and the page's head takes no more than a quarter."""
    page.set_viewport_size({"width": 390, "height": 800})
    start(site, page, site.project(texts=LONG))
    assert height_of(page, ".site") <= 200
    card = page.locator("#cards > *").nth(1)
    card.evaluate("card => scrollTo(0, card.getBoundingClientRect().top + scrollY + 300)")
    letter = card.locator(".letter").bounding_box()
    question = page.locator("#prompt").bounding_box()
    assert question["y"] + question["height"] <= letter["y"] <= 400
