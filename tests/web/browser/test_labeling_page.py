"""The labeling page in a real browser: by keys alone, by clicks alone, by dragging; offline, in two tabs, logged out.

Letters stand for the answers in the order of the screen; `said` turns a stored judgment into them again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.web.browser.hostile import families
from tuneful.feedback.access import sign_in
from tuneful.feedback.projects import publish_instructions
from tuneful.records import Judgment

COUNT_STROKES = "window.strokes = 0; addEventListener('keydown', () => window.strokes++, true)"

TIME_SUBMITS = """
window.waits = [];
addEventListener('keydown', (event) => {
  if (event.key !== 'Enter') return;
  const began = performance.now();
  const seen = new MutationObserver(() => {
    seen.disconnect();
    requestAnimationFrame(() => setTimeout(() => window.waits.push(performance.now() - began)));
  });
  seen.observe(document.querySelector('#cards'), { childList: true });
}, true);
"""
"""From the key to the frame after the cards were changed."""


def start(site: Any, page: Any, project: str) -> None:
    page.goto(site.labeler(project))
    page.locator("#cards > *").first.wait_for()


def prefetched(page: Any) -> None:
    """Wait until the items behind the first are there."""
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(300)


def press(page: Any, keys: str) -> None:
    for key in keys.split():
        page.keyboard.press(key)


def letters(page: Any) -> dict[str, str]:
    """Completion id -> letter of the item on the page."""
    find = "cards => Object.fromEntries(cards.map((card) => [card.dataset.answer, card.dataset.letter]))"
    return dict(page.eval_on_selector_all("#cards > *", find))


def prompt(page: Any) -> str:
    return str(page.locator("#asked").inner_text())


def next_after(page: Any, shown: str) -> None:
    """Wait for an item with another prompt."""
    changed = "asked => asked.checkVisibility() && asked.innerText !== shown"
    page.wait_for_function(f"shown => ({changed})(document.querySelector('#asked'))", arg=shown)


def notice(page: Any, text: str) -> Any:
    return page.locator("#notices").get_by_text(text)


def until(condition: Callable[[], bool], *, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


def stored(site: Any, project: str, number: int) -> list[Judgment]:
    """Wait for so many judgments, oldest first."""
    until(lambda: len(site.judgments(project)) >= number)
    found = sorted(site.judgments(project), key=lambda one: one.created_at)
    assert len(found) == number
    return found


def said(judgment: Judgment, names: dict[str, str]) -> dict[str, int | None]:
    return {names[one]: rank for one, rank in zip(judgment.completions, judgment.ranks, strict=True)}


def is_ready(page: Any) -> bool:
    return bool(page.locator("#submit").is_enabled())


def test_by_keyboard_alone(site: Any, page: Any) -> None:
    project = site.project(items=2)
    start(site, page, project)
    names = letters(page)
    press(page, "b d = a")
    assert not is_ready(page)
    press(page, "c Backspace x 2 x")  # taken out again, and flagged instead
    assert is_ready(page)
    first = prompt(page)
    press(page, "Enter")
    next_after(page, first)
    press(page, "3 1 1 2 Enter")  # digits go from card to card
    page.get_by_text("nothing left for you").wait_for()
    one, two = stored(site, project, 2)
    assert said(one, names) == {"B": 1, "D": 2, "A": 2, "C": None}
    assert {names[answer]: flags for answer, flags in one.flags.items()} == {"C": ("unsafe",)}
    assert sorted(rank or 0 for rank in two.ranks) == [1, 1, 2, 3]
    assert one.seconds is not None
    assert one.instructions


@pytest.mark.parametrize(("answers", "keys", "most"), [(4, "b d = a c", 6), (9, "i h g f e d c b a", 11)])
def test_strokes(site: Any, page: Any, answers: int, keys: str, most: int) -> None:
    project = site.project(answers=answers)
    start(site, page, project)
    page.evaluate(COUNT_STROKES)
    names = letters(page)
    press(page, f"{keys} Enter")
    (judgment,) = stored(site, project, 1)
    assert page.evaluate("window.strokes") <= most
    best = sorted(said(judgment, names).items(), key=lambda pair: (pair[1], pair[0]))
    assert [letter.lower() for letter, _ in best] == (["b", "a", "d", "c"] if answers == 4 else keys.split())


def test_by_clicks_alone(site: Any, page: Any) -> None:
    project = site.project()
    start(site, page, project)
    names = letters(page)
    for letter, tier in (("C", 1), ("A", 2), ("D", 2)):
        page.locator(f"#cards [data-letter={letter}]").click()
        page.locator(f"[data-tier='{tier}'] .tier").click()
    page.locator("#cards [data-letter=B] .flags summary").click()
    page.locator("#cards [data-letter=B]").get_by_label("gibberish").check()
    page.get_by_role("button", name="Submit").click()
    (judgment,) = stored(site, project, 1)
    assert said(judgment, names) == {"C": 1, "A": 2, "D": 2, "B": None}


def test_by_radio_buttons(site: Any, page: Any) -> None:
    project = site.project(answers=3)
    start(site, page, project)
    names = letters(page)
    for letter, tier in (("A", "3"), ("B", "1"), ("C", "1")):
        page.get_by_role("group", name=f"Tier of {letter}").get_by_label(tier).check(force=True)
    assert page.locator("#live").inner_text() == "C is now first, tied with B"
    press(page, "Enter")
    (judgment,) = stored(site, project, 1)
    assert said(judgment, names) == {"A": 2, "B": 1, "C": 1}


@pytest.mark.parametrize("way", ["mouse", "touch"])
def test_by_dragging(site: Any, page: Any, way: str) -> None:
    project = site.project()
    start(site, page, project)
    names = letters(page)
    drag = drag_by_mouse if way == "mouse" else drag_by_touch
    for letter, tier in (("D", 1), ("C", 4), ("B", 2), ("A", 2)):
        drag(page, f"#cards [data-letter={letter}] .handle", f"[data-tier='{tier}']")
    drag(page, ".zone[data-tier='4'] .chip", "[data-tier='3']")
    page.get_by_role("button", name="Submit").click()
    (judgment,) = stored(site, project, 1)
    assert said(judgment, names) == {"D": 1, "B": 2, "A": 2, "C": 3}


def middle(page: Any, selector: str) -> tuple[float, float]:
    box = page.locator(selector).first.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def drag_by_mouse(page: Any, what: str, where: str) -> None:
    page.mouse.move(*middle(page, what))
    page.mouse.down()
    page.mouse.move(*middle(page, where), steps=4)
    page.mouse.up()


def drag_by_touch(page: Any, what: str, where: str) -> None:
    session = page.context.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        touched = [{"x": x, "y": y} for x, y in points]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touched})

    (x, y), (to_x, to_y) = middle(page, what), middle(page, where)
    touch("touchStart", (x, y))
    for part in (0.1, 0.5, 1.0):
        touch("touchMove", (x + part * (to_x - x), y + part * (to_y - y)))
    touch("touchEnd")


def test_next_item_does_not_wait_for_the_server(site: Any, page: Any) -> None:
    """The first judgment is on its way, and nobody answers: the next item is there all the same."""
    project = site.project(items=3)
    start(site, page, project)
    prefetched(page)
    page.context.route("**/submit", lambda route: None)
    first = prompt(page)
    press(page, "a b c d Enter")
    page.wait_for_function("first => document.querySelector('#asked').innerText !== first", arg=first)
    assert page.locator("#cards > *").count() == 4
    assert site.judgments(project) == []
    page.context.unroute("**/submit")


@pytest.mark.soak
def test_next_item_is_painted_within_100_ms(site: Any, page: Any) -> None:
    """9 answers of 1,000 words; the median of three submits, each with the next item fetched before."""
    long = tuple(f"{n} " + "open a window at night, please. " * 167 for n in range(9))
    project = site.project(answers=9, items=6, texts=long)
    start(site, page, project)
    page.evaluate(TIME_SUBMITS)
    for number in range(3):
        prefetched(page)
        press(page, "a b c d e f g h i Enter")
        page.wait_for_function("number => window.waits.length > number", arg=number)
    assert sorted(page.evaluate("window.waits"))[1] <= 100


def test_offline_and_back(site: Any, page: Any) -> None:
    project = site.project(items=5)
    start(site, page, project)
    prefetched(page)
    page.context.set_offline(True)
    for _ in range(3):
        press(page, "a b c d Enter")
    page.get_by_text("3 waiting").wait_for()
    notice(page, "cannot be reached").wait_for()
    assert site.judgments(project) == []
    page.context.set_offline(False)
    stored(site, project, 3)
    page.locator("#outbox").wait_for(state="hidden")
    page.locator("#cards > *").first.wait_for()


def test_outbox_survives_the_page(site: Any, page: Any) -> None:
    project = site.project()
    start(site, page, project)
    prefetched(page)
    place = page.url
    page.context.set_offline(True)
    press(page, "a b c d Enter")
    page.get_by_text("1 waiting").wait_for()
    page.close()
    page.context.set_offline(False)
    assert site.judgments(project) == []
    page.context.new_page().goto(place)
    stored(site, project, 1)


def test_logged_out_loses_nothing(site: Any, page: Any) -> None:
    """The session ends, the labeler goes on, logs in elsewhere: the page learns its new token by itself."""
    project = site.project()
    rater = site.rater(project)
    page.goto(f"{site.url}/sign-in/{sign_in(site.store, rater, now=site.now())}?next=/p/{project}")
    page.locator("#cards > *").first.wait_for()
    prefetched(page)
    page.context.clear_cookies()
    press(page, "a b c d Enter")
    notice(page, "You are logged out").wait_for()
    assert site.judgments(project) == []
    other = page.context.new_page()
    other.goto(f"{site.url}/sign-in/{sign_in(site.store, rater, now=site.now())}?next=/")
    stored(site, project, 1)


def test_second_tab_is_read_only_until_it_takes_over(site: Any, page: Any) -> None:
    project = site.project()
    start(site, page, project)
    press(page, "b")
    second = page.context.new_page()
    second.goto(page.url)
    take = second.get_by_role("button", name="Work here instead")
    take.wait_for()
    assert second.locator(".desk").get_attribute("inert") is not None
    take.click()
    page.get_by_role("button", name="Work here instead").wait_for()
    second.locator("#cards > .placed").wait_for()  # the draft came along
    press(page, "a c d Enter")
    names = letters(second)
    press(second, "a c d Enter")
    (judgment,) = stored(site, project, 1)
    assert said(judgment, names) == {"B": 1, "A": 2, "C": 3, "D": 4}


def test_undo_opens_the_last_one_again(site: Any, page: Any) -> None:
    project = site.project(items=3)
    start(site, page, project)
    first, names = prompt(page), letters(page)
    press(page, "a b c d Enter")
    next_after(page, first)
    second = prompt(page)
    press(page, "b z")
    assert prompt(page) == first
    press(page, "Backspace Backspace d c Enter")
    assert prompt(page) == second
    assert page.locator("#cards > .placed").count() == 1
    until(lambda: [one.replaces is not None for one in site.judgments(project)] == [True])
    (judgment,) = stored(site, project, 1)
    assert said(judgment, names) == {"A": 1, "B": 2, "C": 4, "D": 3}
    press(page, "z Enter")  # opened and left as it was: nothing new is said
    assert prompt(page) == second
    page.wait_for_timeout(300)
    assert stored(site, project, 1) == [judgment]


def test_skipped_item_can_be_opened_again(site: Any, page: Any) -> None:
    project = site.project(items=2)
    start(site, page, project)
    first = prompt(page)
    press(page, "s Enter")
    next_after(page, first)
    assert site.judgments(project) == []
    press(page, "z")
    assert prompt(page) == first
    press(page, "a b c d Enter")
    stored(site, project, 1)


def test_draft_survives_a_reload_and_another_browser(site: Any, page: Any, browser: Any) -> None:
    project = site.project()
    place = site.labeler(project)
    page.goto(place)
    page.locator("#cards > *").first.wait_for()
    press(page, "b d")
    page.get_by_label("Note").fill("hard")
    page.reload()
    page.locator("#cards > .placed").nth(1).wait_for()
    assert page.get_by_label("Note").input_value() == "hard"
    with page.expect_response(lambda answer: num_placed_in_draft(answer.request) == 3):
        page.locator("#cards [data-letter=A]").click()
        press(page, "= a")
    elsewhere = browser.new_context().new_page()
    elsewhere.goto(place)
    elsewhere.locator("#cards > .placed").nth(2).wait_for()
    assert elsewhere.locator("#cards [data-letter=A] .rank").inner_text() == "= 2"
    elsewhere.context.close()


def num_placed_in_draft(request: Any) -> int:
    return len(request.post_data_json["content"]["tiers"]) if request.url.endswith("/draft") else 0


def test_time_is_told_before_it_is_over(site: Any, page: Any) -> None:
    """A minute before the end, so at least the twenty seconds of WCAG 2.2.1; one key gives more."""
    project = site.project()
    page.clock.install()
    start(site, page, project)
    page.clock.fast_forward("09:10")
    notice(page, "s more").wait_for()
    press(page, "e")
    notice(page, "s more").wait_for(state="detached")


def test_late_work_is_kept_and_told(site: Any, page: Any) -> None:
    project = site.project(items=1)
    start(site, page, project)
    press(page, "a b c d")
    site.moved += 700
    press(page, "Enter")
    notice(page, "after its time was over").wait_for()
    stored(site, project, 1)


def test_refused_judgment_is_kept_and_can_be_opened(site: Any, page: Any) -> None:
    project = site.project()
    start(site, page, project)
    prefetched(page)
    page.route("**/submit", lambda route: route.fulfill(status=400, json={"error": "it does not fit"}), times=1)
    shown = prompt(page)
    press(page, "a b c d Enter")
    notice(page, "it does not fit").wait_for()
    page.get_by_text("1 refused").wait_for()
    page.get_by_role("button", name="Open it again").click()
    assert prompt(page) == shown
    press(page, "Enter")
    stored(site, project, 1)
    notice(page, "it does not fit").wait_for(state="detached")


def test_hostile_answers_are_shown_and_do_nothing(site: Any, page: Any) -> None:
    texts = [texts[0] for texts in families().values()][:9]
    project = site.project(answers=9, texts=texts)
    start(site, page, project)
    shown = page.eval_on_selector_all("#cards .text", "texts => texts.map((text) => text.textContent)")
    assert sorted(shown) == sorted(texts)
    assert page.evaluate("typeof window.pwned") == "undefined"
    assert page.locator("#cards :is(script, img, svg, iframe, form)").count() == 0


@pytest.mark.parametrize(
    ("keys", "ranks", "values"),
    [
        ("b 3", {"A": 2, "B": 1}, {"strength": 3}),
        ("a", {"A": 1, "B": 2}, {}),
        ("a 2 =", {"A": 1, "B": 1}, {}),
        ("x", {"A": 1, "B": 1}, {"both_bad": 1}),
    ],
)
def test_comparison(site: Any, page: Any, keys: str, ranks: dict[str, int], values: dict[str, float]) -> None:
    project = site.project("comparison", answers=2)
    start(site, page, project)
    names = letters(page)
    press(page, f"{keys} Enter")
    (judgment,) = stored(site, project, 1)
    assert said(judgment, names) == ranks
    assert judgment.values == values


@pytest.mark.parametrize(("keys", "value"), [("y", 1), ("0", 0), ("1 n", 0)])
def test_binary(site: Any, page: Any, keys: str, value: int) -> None:
    project = site.project("binary", answers=1)
    start(site, page, project)
    press(page, f"{keys} Enter")
    (judgment,) = stored(site, project, 1)
    assert judgment.values == {"helpful": value}


def test_rating(site: Any, page: Any) -> None:
    project = site.project("rating", answers=3)
    start(site, page, project)
    names = {letter: answer for answer, letter in letters(page).items()}
    press(page, "c 7 a 2 5 ArrowRight Enter")  # C, then A, then the one that is left
    (judgment,) = stored(site, project, 1)
    assert judgment.values == {names["C"]: 7, names["A"]: 2, names["B"]: 6}


def test_demonstration(site: Any, page: Any) -> None:
    project = site.project("demonstration", answers=1)
    page.goto(site.labeler(project))
    writing = page.get_by_label("Your answer")
    writing.wait_for()
    assert not is_ready(page)
    page.get_by_role("button", name="Start from A").click()
    writing.press("End")
    page.keyboard.type(" a b")
    writing.press("Enter")
    writing.press("Control+Enter")
    (judgment,) = stored(site, project, 1)
    assert judgment.text == "Open a window at night and close it in the morning. a b\n"


def test_instructions_and_what_changed(site: Any, page: Any) -> None:
    project = site.project(instructions="Rank by **help**.\n\nTies are welcome.")
    start(site, page, project)
    drawer = page.locator("#instructions")
    assert drawer.is_hidden()
    press(page, "h")
    assert drawer.locator("strong").inner_text() == "help"
    assert "version 1" in drawer.inner_text()
    press(page, "h")
    assert drawer.is_hidden()
    publish_instructions(site.store, project, "Rank by **help**.\n\nTies are rare.", now=site.now())
    page.reload()
    page.get_by_role("heading", name="What changed in version 2").wait_for()
    assert drawer.locator("ins").all_inner_texts() == ["Ties are rare."]
    assert drawer.locator("del").all_inner_texts() == ["Ties are welcome."]
    page.reload()
    page.locator("#cards > *").first.wait_for()
    prefetched(page)
    assert drawer.is_hidden()


def test_new_instructions_are_told_before_the_items_that_are_in_hand(site: Any, page: Any) -> None:
    project = site.project(items=8)
    start(site, page, project)
    prefetched(page)
    publish_instructions(site.store, project, "Which answer **harms** least?", now=site.now())
    press(page, "a b c d Enter")
    page.get_by_role("heading", name="What changed in version 2").wait_for()
    press(page, "h a b c d Enter")
    versions = [one.instructions for one in stored(site, project, 2)]
    assert versions[0] != versions[1]


def test_quiz_teaches_before_the_next_item(site: Any, page: Any) -> None:
    project = site.project(answers=2, items=2, quiz=1)
    start(site, page, project)
    best = page.locator("#cards > *", has_text="Open a window").get_attribute("data-letter")
    press(page, "a b Enter" if best == "A" else "b a Enter")
    page.get_by_role("heading", name="100 % right").wait_for()
    assert page.get_by_text("A remedy is best.").is_visible()
    assert page.locator("#work").is_hidden()
    press(page, "Enter")
    page.locator("#asked", has_text="My house").wait_for()


def test_keys_can_be_moved_and_switched_off(site: Any, page: Any) -> None:
    project = site.project()
    start(site, page, project)
    press(page, "?")
    page.get_by_label("Keys of the answers").fill("jklasdfgh")
    page.get_by_role("button", name="Close").last.click()
    press(page, "j a")  # A and D; the letter a is D's now
    placed = page.eval_on_selector_all("#cards > .placed", "cards => cards.map((card) => card.dataset.letter)")
    assert placed == ["A", "D"]
    press(page, "?")
    page.get_by_label("Letters, digits and signs are keys").uncheck()
    page.get_by_role("button", name="Close").last.click()
    press(page, "k l Enter")
    assert page.locator("#cards > .placed").count() == 2


def test_settings_of_reading(site: Any, page: Any) -> None:
    """Marks what answers share, scrolls them together, and makes the text larger."""
    texts = [f"Number {n}. " + "Open a window. " * (200 + 100 * n) for n in range(2)]
    project = site.project(answers=2, texts=texts)
    start(site, page, project)
    press(page, "?")
    page.get_by_label("Mark what answers have in common").check()
    page.get_by_label("Answers scroll together").check()
    page.get_by_label("Text size").select_option("large")
    page.get_by_role("button", name="Close").last.click()
    shared = page.locator("#cards .shared")
    assert set(shared.all_inner_texts()) == {"Open a window. "}
    assert sorted(page.eval_on_selector_all("#cards .text", "all => all.map((one) => one.textContent)")) == texts
    assert page.eval_on_selector("#cards .text", "text => getComputedStyle(text).fontSize") == "19.2px"
    page.locator("#cards [data-letter=A]").hover()
    page.mouse.wheel(0, 10_000)
    at_its_end = "all => all.every((one) => one.scrollTop + one.clientHeight >= one.scrollHeight - 1)"
    until(lambda: bool(page.eval_on_selector_all("#cards > *", at_its_end)))


def test_ranking_by_hand(site: Any, page: Any) -> None:
    """The model alone: ties, gaps closed, an answer that joins, undo, and what is said."""
    project = site.project()
    start(site, page, project)
    found = page.evaluate(
        """async () => {
          const { begin, type, tie, place, move, undo, unplace, ranks, sentence } = await import('/static/ranking.js');
          const none = begin(['a', 'b', 'c', 'd']);
          const typed = type(type(tie(type(none, 'D')), 'B'), 'A');
          const gaps = type(place(place(none, 'a', 4), 'b', 2), 'C');
          return [ranks(typed), sentence(typed, 'b'), ranks(undo(typed)), ranks(gaps), ranks(move(typed, 'a', -1)),
            ranks(unplace(typed)), ranks(type(tie(typed), 'B'))];
        }"""
    )
    assert found == [
        {"a": 2, "b": 1, "c": None, "d": 1},
        "B is now first, tied with D",
        {"a": None, "b": 1, "c": None, "d": 1},
        {"a": 2, "b": 1, "c": 3, "d": None},
        {"a": 1, "b": 1, "c": None, "d": 1},
        {"a": None, "b": 1, "c": None, "d": 1},
        {"a": 2, "b": 2, "c": None, "d": 1},
    ]
