"""Over 500 nasty answers in a real browser: no script runs, nothing is fetched from outside, nothing breaks out."""

from __future__ import annotations

import uuid
from typing import Any

from tests.web.browser.hostile import families
from tests.web.client import signed_in
from tuneful.feedback.access import sign_in
from tuneful.feedback.decisions import decide, make_gold
from tuneful.feedback.items import add_items
from tuneful.feedback.projects import create_project, publish_instructions
from tuneful.feedback.review import look
from tuneful.records import Candidates, Completion, Prompt

TEXTS = [text for texts in families().values() for text in texts]
PER_ITEM = 9

BROKEN_OUT = "script:not([src]), iframe, object, embed, math, base, img:not([src^='data:']), main form[action^='java']"
"""Elements that none of our pages has; a text that became one of them was not escaped."""


def nasty_project(site: Any, *, overlap: int = 1) -> str:
    """Every text as an answer, nine to an item, and the first of them as prompts and instructions."""
    made = create_project(site.store, f"nasty {uuid.uuid4()} <script>window.pwned=1</script>", now=site.now())
    publish_instructions(site.store, made, "\n\n".join(families()["markdown"] + families()["tags"]), now=site.now())
    starts = range(0, len(TEXTS), PER_ITEM)
    asked = [
        Candidates(
            Prompt.user(TEXTS[start]),
            tuple(Completion(text, id=str(start + n)) for n, text in enumerate(TEXTS[start : start + PER_ITEM])),
        )
        for start in starts
    ]
    add_items(site.store, made, [one for one in asked if len(one.completions) > 1], overlap=overlap, now=site.now())
    return made


def answers_of(site: Any, project: str, item: str) -> int:
    return len(look(site.store, project, item).answers)


def unharmed(page: Any) -> bool:
    return bool(page.evaluate("typeof window.pwned === 'undefined'")) and page.locator(BROKEN_OUT).count() == 0


def test_there_are_enough_of_them() -> None:
    assert len(set(TEXTS)) >= 500
    assert len(families()) >= 15


def test_on_the_labeling_page(site: Any, page: Any) -> None:
    project = nasty_project(site)
    rater = site.rater(project, name='<img src=x onerror="window.pwned=1">')
    client = signed_in(site, rater)
    page.goto(f"{site.url}/sign-in/{sign_in(site.store, rater, now=site.now())}?next=/p/{project}")
    shown = 0
    while (given := client.post(f"/p/{project}/claim", json={}).json()["assignment"]) is not None:
        page.goto(f"{site.url}/p/{project}")
        page.locator("#cards > *").nth(len(given["answers"]) - 1).wait_for(timeout=20_000)
        assert unharmed(page), given["answers"]
        shown += len(given["answers"])
        client.post(f"/a/{given['id']}/skip", json={})
    assert shown >= len(TEXTS) - 1


def test_on_the_lead_s_page_and_in_error_messages(site: Any, page: Any) -> None:
    """The pairs that people agree on least are shown there; two labelers who rank everything oppositely make all so."""
    project = nasty_project(site, overlap=2)
    for sign in (1, -1):
        client = signed_in(site, site.rater(project, name="<svg onload=window.pwned=1>"))
        while (given := client.post(f"/p/{project}/claim", json={}).json()["assignment"]) is not None:
            ids = sorted(answer["id"] for answer in given["answers"])[::sign]
            word = {"id": str(uuid.uuid4()), "ranks": {one: n + 1 for n, one in enumerate(ids)}, "note": TEXTS[0]}
            assert client.post(f"/a/{given['id']}/submit", json=word).status_code == 200
    lead = site.rater(project, role="lead")
    page.goto(f"{site.url}/sign-in/{sign_in(site.store, lead, now=site.now())}?next=/lead/{project}")
    shown = page.locator("#hardest ~ .scroll, section:has(#hardest) td").all_inner_texts()
    assert any("window.pwned" in text for text in shown), shown
    assert unharmed(page)
    for item in {judgment.item for judgment in site.judgments(project)}:
        decide(site.store, item, by=lead, ranks=[1] * answers_of(site, project, item), why=TEXTS[1], now=site.now())
        made = make_gold(site.store, item, by=lead, why=TEXTS[2], now=site.now())
        for place in (f"items/{item}", f"items/{made}"):
            page.goto(f"{site.url}/lead/{project}/{place}")
            assert unharmed(page), place
    for place in ("items?show=all", "items?show=decided", "gold", "instructions", "items/<svg onload=window.pwned=1>"):
        page.goto(f"{site.url}/lead/{project}/{place}")
        assert unharmed(page), place
    for place in ("/", "/invitation/<svg onload=window.pwned=1>", "/p/<svg onload=window.pwned=1>"):
        page.goto(site.url + place)
        assert unharmed(page)
