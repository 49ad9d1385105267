"""axe-core on every page, in light and dark, wide and at 320 px: no violation of WCAG 2.2 A and AA."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.web.browser.test_labeling_page import start
from tests.web.client import signed_in
from tuneful.feedback.access import accept, invite, invite_first_admin, sign_in
from tuneful.feedback.decisions import decide, make_gold
from tuneful.feedback.jobs import DATASET, QUALITY, WIN_RATES, add_job, claim, enqueue, fail
from tuneful.feedback.projects import publish_instructions

WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 320, "height": 640}


def violations(page: Any) -> list[str]:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(
        page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
    )
    return [f"{one['id']}: {[node['target'] for node in one['nodes']]}" for one in found.response["violations"]]


def overflow(page: Any) -> int:
    """Pixels by which the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


@pytest.fixture
def places(site: Any) -> dict[str, str]:
    """Every kind of page, with something on it; those who are not logged in see the first two."""
    project = site.project(items=3, overlap=2)
    for _ in range(2):
        client = signed_in(site, site.rater(project))
        while (given := client.post(f"/p/{project}/claim", json={}).json()["assignment"]) is not None:
            ranks = {answer["id"]: n + 1 for n, answer in enumerate(given["answers"])}
            client.post(f"/a/{given['id']}/submit", json={"id": given["id"], "ranks": ranks, "seconds": 3})
    request = {"models": ["runs/a", "runs/b"], "samples": 2, "temperature": 1.0, "max_new_tokens": 64}
    for ended in (False, True):
        site.store.write(lambda c: add_job(c, project, "completions", request, by=None, total=9, now=site.now() - 60))
        if ended and (job := claim(site.store, now=site.now())) is not None:
            fail(site.store, job, "runs/a: no model", now=site.now())
    for kind in (DATASET, QUALITY, WIN_RATES):
        enqueue(site.store, project, kind, {"group": None}, by=None, now=site.now() - 60)
    admin = invite_first_admin(site.store, now=site.now())
    assert admin is not None
    ada = accept(site.store, admin, login="ada", password="correct horse", now=site.now())
    secret = sign_in(site.store, ada, now=site.now())
    disputed = site.judgments(project)[0].item
    decide(site.store, disputed, by=ada, ranks=(1, 2, 3, 3), why="The first can be done.", now=site.now())
    known = make_gold(site.store, disputed, by=ada, why="It can be done.", now=site.now())
    publish_instructions(site.store, project, "Which answer **helps** most?\n\nRead all of them.", now=site.now())
    found = {
        "login": "/login",
        "invitation": f"/invitation/{invite(site.store, project_id=project, now=site.now())}",
        "projects": f"/sign-in/{secret}?next=/",
        "new project": "/lead/new",
        "account": "/account",
        "lead": f"/lead/{project}",
        "items": f"/lead/{project}/items?show=all",
        "item": f"/lead/{project}/items/{disputed}",
        "gold": f"/lead/{project}/gold",
        "gold item": f"/lead/{project}/items/{known}",
        "instructions": f"/lead/{project}/instructions",
        "quality": f"/lead/{project}/quality",
        "answers of models": f"/lead/{project}/answers",
        "error": "/nowhere",
    }
    for kind in ("ranking", "comparison", "binary", "rating", "demonstration"):
        answers = {"ranking": 4, "comparison": 2, "rating": 3}.get(kind, 1)
        made = site.project(kind, answers=answers, items=2)
        rater = sign_in(site.store, site.rater(made), now=site.now())
        found[kind] = f"/sign-in/{rater}?next=/p/{made}"
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_has_a_violation(site: Any, page: Any, places: dict[str, str], scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    wrong = {}
    for name, place in places.items():
        page.goto(site.url + place)
        page.wait_for_load_state("networkidle")
        wrong[name] = violations(page)
    assert {name: found for name, found in wrong.items() if found} == {}


def test_every_page_fits_320_pixels(site: Any, page: Any, places: dict[str, str]) -> None:
    page.set_viewport_size(NARROW)
    wide, wrong = {}, {}
    for name, place in places.items():
        page.goto(site.url + place)
        page.wait_for_load_state("networkidle")
        wide[name] = overflow(page)
        wrong[name] = violations(page)
    page.set_viewport_size(WIDE)
    assert json.dumps({name: pixels for name, pixels in wide.items() if pixels > 0}) == "{}"
    assert {name: found for name, found in wrong.items() if found} == {}


CONTRAST = """chip => {
  const light = (color) => {
    const parts = color.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255);
    const [r, g, b] = parts.map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const { color, backgroundColor } = getComputedStyle(chip);
  const [dark, bright] = [light(color), light(backgroundColor)].sort((a, b) => a - b);
  return (bright + 0.05) / (dark + 0.05);
}"""
"""As WCAG 2.2 defines it, of a text on its own ground."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_chip_under_the_pointer_can_be_read(site: Any, page: Any, scheme: str) -> None:
    """That of the focused answer and another one: axe sees no page with a pointer on it."""
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    start(site, page, site.project())
    for letter in "AB":
        chip = page.locator("#rail .chip", has_text=letter)
        chip.hover()
        assert chip.evaluate("chip => chip.matches(':hover')")
        assert chip.evaluate(CONTRAST) >= 4.5
