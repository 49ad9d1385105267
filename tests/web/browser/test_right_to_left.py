"""Arabic and Hebrew in a real browser: which side a paragraph begins at, where its full stop goes, what is mixed in."""

from __future__ import annotations

from typing import Any

import pytest

from tests.web.browser.test_labeling_page import start
from tuneful.feedback.access import sign_in
from tuneful.feedback.items import add_items
from tuneful.feedback.projects import create_project, publish_instructions
from tuneful.records import Candidates, Completion, Prompt

HEBREW = "פתחו חלון בלילה."
ARABIC = "افتح النافذة (10 مساء)؟"
ENGLISH = "Open a window at night."
MIXED = f"{ARABIC}\n{ENGLISH}\n{HEBREW}"

PLACES = """
(element, marks) => {
  const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  const boxes = [];
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    [...node.data].forEach((sign, at) => {
      const range = document.createRange();
      range.setStart(node, at);
      range.setEnd(node, at + 1);
      const { left, right, top } = range.getBoundingClientRect();
      boxes.push({ sign, left, right, top });
    });
  }
  const style = getComputedStyle(element);
  const box = element.getBoundingClientRect();
  const [start, end] = [box.left + parseFloat(style.paddingLeft), box.right - parseFloat(style.paddingRight)];
  return { boxes: boxes.filter(({ sign }) => sign !== "\\n"), start, end };
}
"""
"""Where each character of an element stands, and the sides of its content."""


def lines(element: Any) -> tuple[list[list[dict[str, Any]]], float, float]:
    """The characters of each line from left to right, and where lines may begin and end."""
    found = element.evaluate(PLACES)
    by_top: dict[int, list[dict[str, Any]]] = {}
    for box in found["boxes"]:
        by_top.setdefault(round(box["top"] / 8), []).append(box)
    rows = [sorted(row, key=lambda box: box["left"]) for _, row in sorted(by_top.items())]
    return rows, found["start"], found["end"]


def is_at_the_right(row: list[dict[str, Any]], end: float) -> bool:
    return abs(row[-1]["right"] - end) < 3


def is_at_the_left(row: list[dict[str, Any]], start: float) -> bool:
    return abs(row[0]["left"] - start) < 3


def answer(page: Any, text: str) -> Any:
    """The text of the card that has this one."""
    return next(one for one in page.locator("#cards .text").all() if one.text_content() == text)


@pytest.fixture
def project(site: Any) -> str:
    made: str = create_project(site.store, "Right to left", now=site.now())
    publish_instructions(site.store, made, f"{HEBREW}\n\n- {ARABIC}\n\n{ENGLISH}", now=site.now())
    answers = (HEBREW, MIXED, ENGLISH)
    offered = tuple(Completion(text, id=str(n)) for n, text in enumerate(answers))
    add_items(site.store, made, [Candidates(Prompt.user(HEBREW), offered)], overlap=2, now=site.now())
    return made


def test_a_paragraph_begins_at_the_side_of_its_script(site: Any, page: Any, project: str) -> None:
    """Right for Hebrew and Arabic, left for English, also where they stand in one answer; the prompt likewise."""
    page.set_viewport_size({"width": 1600, "height": 900})  # each paragraph on one line
    start(site, page, project)
    ((asked,), _, end) = lines(page.locator("#asked .text"))
    assert is_at_the_right(asked, end)
    for text, english in ((HEBREW, (False,)), (MIXED, (False, True, False)), (ENGLISH, (True,))):
        rows, left, end = lines(answer(page, text))
        assert len(rows) == len(english)
        for row, is_english in zip(rows, english, strict=True):
            assert (is_at_the_left(row, left), is_at_the_right(row, end)) == (is_english, not is_english)


def test_signs_stand_where_a_reader_looks_for_them(site: Any, page: Any, project: str) -> None:
    """A full stop and a question mark end the sentence at its left, in English at its right; a number is not turned."""
    page.set_viewport_size({"width": 1600, "height": 900})
    start(site, page, project)
    for _ in range(2):
        (hebrew,), _, _ = lines(answer(page, HEBREW))
        arabic, english, _ = lines(answer(page, MIXED))[0]
        assert (hebrew[0]["sign"], arabic[0]["sign"], english[-1]["sign"]) == (".", "؟", ".")
        number = [box["sign"] for box in arabic if box["sign"] in "10"]
        assert number == ["1", "0"]
        page.get_by_role("button", name="Keys").click()  # what answers share is marked, in spans of its own
        page.get_by_label("Mark what answers have in common").check()
        page.get_by_role("button", name="Close").click()


def test_what_is_written_runs_as_its_script_does(site: Any, page: Any, project: str) -> None:
    start(site, page, project)
    page.get_by_role("button", name="Open them").click()
    note = page.locator("#note")
    direction = "element => [getComputedStyle(element).direction, getComputedStyle(element).textAlign]"
    note.fill(ENGLISH)
    assert note.evaluate(direction) == ["ltr", "start"]
    note.fill(HEBREW)
    assert note.evaluate(direction) == ["rtl", "start"]
    guide = page.locator("#guide")
    blocks = [(block, lines(block)) for block in guide.locator("p, li").all()]
    sides = [is_at_the_right(rows[-1], end) for _, (rows, _, end) in blocks]
    assert sides == [True, True, False]
    assert guide.evaluate(direction)[0] == "rtl"  # the list's marks are at the right too


def test_the_lead_reads_it_in_the_same_way(site: Any, page: Any, project: str) -> None:
    secret = sign_in(site.store, site.rater(project, role="lead"), now=site.now())
    page.set_viewport_size({"width": 1600, "height": 900})
    page.goto(f"{site.url}/sign-in/{secret}?next=/lead/{project}/items?show=all")
    page.locator("table a").first.click()
    rows, left, end = lines(page.locator(".grid .text").nth(1))
    sides = [(is_at_the_left(row, left), is_at_the_right(row, end)) for row in rows]
    assert sides == [(False, True), (True, False), (False, True)]
