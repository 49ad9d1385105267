"""The lead's road in a real browser: from the link of the first start to pairs that a reward model is trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tuneful.data.formats import read_comparisons
from tuneful.feedback.access import invite_first_admin


def test_from_the_first_link_to_exported_pairs(site: Any, page: Any, browser: Any, tmp_path: Path) -> None:
    secret = invite_first_admin(site.store, now=site.now())
    page.goto(f"{site.url}/invitation/{secret}")
    page.get_by_label("Login name").fill("ada")
    page.get_by_label("Password").fill("correct horse battery")
    page.get_by_role("button", name="Join").click()

    page.goto(f"{site.url}/lead/new")
    page.get_by_label("Name").fill("Hot houses")
    page.get_by_label("Instructions").fill("Which answer **helps** most?")
    page.get_by_role("button", name="Make the project").click()

    page.get_by_label("File of prompts and completions").set_input_files(items(tmp_path / "items.jsonl"))
    page.get_by_label("Labelers for each item").fill("1")
    page.get_by_role("button", name="Add items").click()
    page.get_by_text("0 of 2 judgments").wait_for()

    page.get_by_role("button", name="Make an invitation link").click()
    link = page.get_by_label("Link").input_value()
    label_everything(browser, link)

    page.goto(page.url.removesuffix("/invitations"))
    page.get_by_text("2 of 2 judgments").wait_for()
    with page.expect_download() as download:
        page.get_by_role("link", name="preferences.jsonl").click()
    download.value.save_as(tmp_path / "preferences.jsonl")
    pairs = read_comparisons(tmp_path / "preferences.jsonl")
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [("Open a window.", "So what?")] * 2


def items(path: Path) -> Path:
    answers = [{"text": "Open a window."}, {"text": "So what?"}]
    rows = [{"prompt": f"My house is too hot, {n}.", "completions": answers} for n in range(2)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def label_everything(browser: Any, link: str) -> None:
    """Come by an invitation and rank the helpful answer first, by keyboard."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(link)
    page.get_by_label("Login name").fill("bo")
    page.get_by_label("Password").fill("another horse battery")
    page.get_by_role("button", name="Join").click()
    for _ in range(2):
        cards = page.locator("#cards > *")
        cards.nth(1).wait_for()
        helpful_first = "Open" in cards.nth(0).inner_text()
        shown = page.locator("#prompt").inner_text()
        for key in ("a", "b", "Enter") if helpful_first else ("b", "a", "Enter"):
            page.keyboard.press(key)
        page.wait_for_function("shown => document.querySelector('#prompt').innerText !== shown", arg=shown)
    page.get_by_text("nothing left").wait_for()
    page.wait_for_function("document.querySelector('#outbox').hidden")
    context.close()
