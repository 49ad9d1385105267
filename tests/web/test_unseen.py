"""Characters that are not seen, or that turn what one reads around, are named on the pages by which leads decide."""

from __future__ import annotations

import re
import uuid
from typing import Any

from tests.web.client import signed_in
from tuneful.feedback.access import accept, invite_first_admin
from tuneful.feedback.assignment import claim, skip
from tuneful.feedback.decisions import decide, make_gold
from tuneful.feedback.items import add_items
from tuneful.feedback.projects import add_rater, create_project, publish_instructions
from tuneful.feedback.submission import Said, submit
from tuneful.records import Candidates, Completion, Prompt

TURNED = "\u202eevil txt"
"""A browser that obeys it shows "txt live"."""

SENT_BACK = re.compile(r"<textarea.*?</textarea>|<input[^>]*>", re.DOTALL)


def test_no_page_of_a_lead_obeys_what_turns_texts_around(site: Any) -> None:
    project = create_project(site.store, f"name {TURNED}", criteria=(f"criterion {TURNED}",), now=site.now())
    publish_instructions(site.store, project, f"rule {TURNED}", now=site.now())
    answers = (Completion(f"answer {TURNED}", model=f"model {TURNED}"), Completion("Buy a fan."))
    asked = [Candidates(Prompt(f"prompt {n} {TURNED}"), answers) for n in range(3)]
    items = add_items(site.store, project, asked, overlap=2, now=site.now())
    for number in range(2):
        rater = add_rater(site.store, project, name=f"labeler {TURNED}", now=site.now())
        while (given := claim(site.store, project, rater, now=site.now())) is not None:
            if given.item == items[2]:
                skip(site.store, given.id, rater, reason=f"reason {TURNED}")
                continue
            ranks = (1, 2) if number else (2, 1)
            word = Said(
                id=str(uuid.uuid4()),
                ranks=ranks,
                flags={},
                values={},
                note=f"note {TURNED}",
                criterion=f"criterion {TURNED}",
            )
            submit(site.store, given.id, rater, word, now=site.now())
    secret = invite_first_admin(site.store, now=site.now())
    assert secret is not None
    signed = accept(site.store, secret, login=f"ada {TURNED}", password="correct horse", now=site.now())
    lead = add_rater(site.store, project, role="lead", name=f"lead {TURNED}", now=site.now())
    decide(site.store, items[0], by=lead, ranks=(1, 2), why=f"why {TURNED}", now=site.now())
    gold = make_gold(site.store, items[0], by=lead, why=f"told {TURNED}", now=site.now())
    place = f"/lead/{project}"
    told = {
        "/": ("name", "lead"),
        place: ("name", "criterion", "rule", "answer", "prompt 1", "labeler", "note", "reason"),
        f"{place}/items?show=all": ("prompt 0",),
        f"{place}/items/{items[0]}": ("answer", "model", "prompt 0", "note", "why"),
        f"{place}/items/{items[2]}": ("prompt 2", "reason"),
        f"{place}/items/{gold}": ("answer", "told"),
        f"{place}/gold": ("prompt 0",),
        f"{place}/instructions": ("rule",),
        f"{place}/quality": ("prompt 1", "labeler", "criterion"),
        f"{place}/answers": ("name",),
    }
    client = signed_in(site, lead)
    for where, words in told.items():
        page = client.get(where)
        assert page.status_code == 200, where
        shown = SENT_BACK.sub("", page.text)
        assert "\u202e" not in shown, where
        for word in words:
            assert f"{word} ⟨U+202E⟩evil txt" in shown, (where, word)
    assert "ada ⟨U+202E⟩evil txt" in signed_in(site, signed).get("/").text


def test_what_a_form_sends_back_is_what_is_there(site: Any) -> None:
    project = site.project(items=1, instructions=f"rule {TURNED}")
    lead = signed_in(site, site.rater(project, role="lead"))
    for where in (f"/lead/{project}", f"/lead/{project}/instructions"):
        assert f"required>rule {TURNED}</textarea>" in lead.get(where).text


def test_joiners_that_scripts_and_emoji_need_stay(site: Any) -> None:
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467 \u0646\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
    project = site.project(items=1, answers=2, texts=(family, "no"))
    lead = signed_in(site, site.rater(project, role="lead"))
    (item,) = set(re.findall(r"/items/([0-9a-f]{10,})", lead.get(f"/lead/{project}/items?show=all").text))
    assert family in lead.get(f"/lead/{project}/items/{item}").text
