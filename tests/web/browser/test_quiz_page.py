"""The quiz as a labeler meets it: what it asks, what each question teaches, and what is said when it is not passed."""

from __future__ import annotations

from typing import Any

from tests.web.browser.test_accessibility import violations
from tests.web.browser.test_labeling_page import press, start


def answer(page: Any, *, right: bool) -> None:
    """Of two answers, "Open a window" is known to be the better one."""
    best = page.locator("#cards > *", has_text="Open a window").get_attribute("data-letter")
    press(page, "a b Enter" if (best == "A") == right else "b a Enter")
    page.locator("#lesson").wait_for()


def test_who_fails_the_quiz_is_told_so(site: Any, page: Any) -> None:
    """Before each question how many there are and what passes, and at the end why nothing comes."""
    start(site, page, site.project(answers=2, items=2, quiz=2))
    line = page.locator("#quiz")
    assert "Question 1 of 2 of the quiz" in line.inner_text()
    assert "at least 70 % right" in line.inner_text()
    answer(page, right=True)
    assert page.get_by_text("That was question 1 of 2").is_visible()
    press(page, "Enter")
    line.get_by_text("Question 2 of 2").wait_for()
    answer(page, right=False)
    assert page.get_by_text("Not passed yet. In the last 2 questions 50 % was right").is_visible()
    press(page, "Enter")
    page.get_by_text("You have not passed the quiz yet.").wait_for()
    assert "In the last 2 questions 50 % was right; you pass with at least 70 %." in page.locator("#pause").inner_text()
    assert page.get_by_text("Ask the lead").is_visible()
    assert page.get_by_text("nothing left").count() == 0
    page.reload()
    page.get_by_text("You have not passed the quiz yet.").wait_for()


def test_the_lesson_keeps_what_was_read(site: Any, page: Any) -> None:
    start(site, page, site.project(answers=2, items=2, quiz=2))
    answer(page, right=False)
    lesson = page.locator("#lesson")
    assert lesson.get_by_text("My room is too hot").is_visible()
    rows = {
        row.locator(".text").inner_text(): row.locator("td").all_inner_texts()[:2]
        for row in lesson.locator("tbody tr").all()
    }
    assert violations(page) == []
    assert rows == {"Open a window at night and close it in the morning.": ["2", "1"], "Buy a fan.": ["1", "2"]}


def test_who_passes_meets_no_more_of_it(site: Any, page: Any) -> None:
    start(site, page, site.project(answers=2, items=1, quiz=1))
    answer(page, right=True)
    assert page.locator("#lesson-quiz").is_hidden()
    press(page, "Enter")
    page.locator("#asked", has_text="My house").wait_for()
    assert page.locator("#quiz").is_hidden()
    press(page, "a b Enter")
    page.get_by_text("nothing left for you").wait_for()


def test_a_claim_from_before_the_quiz_was_passed_keeps_nobody_waiting(site: Any, page: Any) -> None:
    """The claim ahead finds nothing while the quiz is open, and is told so only after it was passed."""
    held: list[tuple[Any, Any]] = []
    claims: list[Any] = []

    def hold(route: Any) -> None:
        claims.append(route)
        if len(claims) == 2:
            held.append((route, route.fetch()))
        else:
            route.continue_()

    page.route("**/claim", hold)
    start(site, page, site.project(answers=2, items=1, quiz=1))
    answer(page, right=True)
    ((route, response),) = held
    assert response.json()["assignment"] is None
    press(page, "Enter")
    route.fulfill(response=response)
    page.locator("#asked", has_text="My house").wait_for(timeout=15_000)
