"""What the page tells those who see it: beside the submit button, above the work, and on cards without a text."""

from __future__ import annotations

from typing import Any

from tests.web.browser.test_labeling_page import next_after, press, prompt, start


def told(page: Any) -> str:
    """What stands beside the submit button, if it can be seen there."""
    line = page.locator("#told")
    text = str(line.inner_text())
    if not text:
        return ""
    place, submit = line.bounding_box(), page.locator("#submit").bounding_box()
    assert place["width"] > 50
    assert submit["x"] - 250 < place["x"] + place["width"] <= submit["x"]
    assert abs(place["y"] + place["height"] / 2 - submit["y"] - submit["height"] / 2) < 30
    return text


def test_an_early_submit_is_answered_in_view(site: Any, page: Any) -> None:
    start(site, page, site.project(items=2))
    press(page, "a b Enter")
    assert told(page) == page.locator("#live").inner_text() == "Not everything is said yet"
    press(page, "c")
    assert told(page) == ""
    press(page, "Enter")
    assert told(page) == "Not everything is said yet"
    page.locator("#cards [data-letter=D]").click()
    assert told(page) == ""


def test_an_item_that_is_open_again_says_so_in_view(site: Any, page: Any) -> None:
    start(site, page, site.project(items=3))
    press(page, "z")
    assert told(page) == "There is nothing to open again"
    first = prompt(page)
    press(page, "a b c d Enter")
    next_after(page, first)
    assert told(page) == ""
    second = prompt(page)
    press(page, "z")
    next_after(page, second)
    assert told(page) == "The last item is open again"
    press(page, "Enter")  # left as it was
    next_after(page, first)
    assert told(page) == ""


def test_instructions_are_asked_to_be_read_until_they_are(site: Any, page: Any) -> None:
    """Also after the page was loaded anew; and not again after it, once they were open."""
    start(site, page, site.project(items=2))
    asked = page.locator("#notices").get_by_text("Read the instructions before you begin.")
    asked.wait_for()
    press(page, "a b c d Enter")
    page.reload()
    asked.wait_for()
    press(page, "h")
    page.locator("#instructions").wait_for()
    assert asked.count() == 0
    press(page, "Escape")
    page.reload()
    page.locator("#cards > *").first.wait_for()
    page.wait_for_function("document.querySelector('#version').textContent === 'version 1'")
    assert asked.count() == 0


def test_the_bar_above_stays_one_line(site: Any, page: Any) -> None:
    """After a submit the count tells the pace too; nothing below moves for it."""
    start(site, page, site.project(answers=9, items=12))
    height = page.locator(".bar").bounding_box()["height"]
    first = prompt(page)
    press(page, "a b c d e f g h i Enter")
    next_after(page, first)
    page.locator("#count", has_text="s an item").wait_for()
    page.evaluate("badge => { badge.hidden = false; badge.textContent = '3 waiting'; }", page.query_selector("#outbox"))
    assert page.locator(".bar").bounding_box()["height"] == height < 40
    keys, criterion = page.locator("[data-command=keys]").bounding_box(), page.locator("#criteria").bounding_box()
    assert keys["x"] + keys["width"] <= 1280
    assert criterion["width"] >= 60


def test_an_answer_without_a_text_says_so(site: Any, page: Any) -> None:
    """Muted, and no part of the text that one could mark or copy."""
    start(site, page, site.project(answers=2, texts=(" \n", "Buy a fan.")))
    shown = {
        text.text_content(): text.evaluate("text => getComputedStyle(text, '::before').content")
        for text in page.locator("#cards .text").all()
    }
    assert shown == {" \n": '"(empty)"', "Buy a fan.": "none"}
    page.evaluate("getSelection().selectAllChildren(document.querySelector('#cards .empty'))")
    assert page.evaluate("getSelection().toString()").strip() == ""
