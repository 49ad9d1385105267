"""The lead's road in a real browser: from the link of the first start to pairs that a reward model is trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.pipeline.recipes import WORDS, stage_toml
from tuneful.data.formats import read_comparisons
from tuneful.feedback.access import invite_first_admin
from tuneful.pipeline.recipe import load_recipe
from tuneful.pipeline.run import run_recipe
from tuneful.records import Completion, Prompt
from tuneful.rewards.load import load_reward

GOOD, BAD = "yes please open the window", "no no no go to sleep"

ASKED, KEPT = WORDS[:12], WORDS[12:]
"""What the labeler is asked about, and what the reward model has to carry over to."""


def test_from_the_first_link_to_a_trained_reward_model(
    site: Any, page: Any, browser: Any, tiny_model_dir: Path, tmp_path: Path
) -> None:
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
    page.get_by_text(f"0 of {len(ASKED)} judgments").wait_for()

    page.get_by_role("button", name="Make an invitation link").click()
    link = page.get_by_label("Link").input_value()
    label_everything(browser, link)

    page.goto(page.url.removesuffix("/invitations"))
    page.get_by_text(f"{len(ASKED)} of {len(ASKED)} judgments").wait_for()
    with page.expect_download() as download:
        page.get_by_role("link", name="preferences.jsonl").click()
    download.value.save_as(tmp_path / "preferences.jsonl")
    pairs = read_comparisons(tmp_path / "preferences.jsonl")
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [(GOOD, BAD)] * len(ASKED)

    reward = load_reward(str(trained(tmp_path, tiny_model_dir) / "model"))
    prompts = [Prompt(word) for word in KEPT]
    helpful, unhelpful = (reward(prompts, [Completion(text)] * len(KEPT)) for text in (GOOD, BAD))
    assert (helpful > unhelpful).all()


def trained(folder: Path, model: Path) -> Path:
    """The stage of a reward model that has learned from the downloaded pairs."""
    recipe, pairs = folder / "recipe.toml", str(folder / "preferences.jsonl")
    recipe.write_text(
        stage_toml(
            "reward",
            algorithm="reward",
            model=str(model),
            comparisons=pairs,
            normalise_prompts=pairs,
            normalise_model=str(model),
            normalise_samples=16,
            max_new_tokens=6,
            prompts_per_step=4,
            epochs=4,
            optimization={"learning_rate": 1e-2},
        )
    )
    run_recipe(load_recipe(recipe), folder / "run")
    return folder / "run" / "reward"


def items(path: Path) -> Path:
    answers = [{"text": GOOD}, {"text": BAD}]
    rows = [{"prompt": word, "completions": answers} for word in ASKED]
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
    for _ in ASKED:
        cards = page.locator("#cards > *")
        cards.nth(1).wait_for()
        helpful_first = GOOD in cards.nth(0).inner_text()
        shown = page.locator("#prompt").inner_text()
        for key in ("a", "b", "Enter") if helpful_first else ("b", "a", "Enter"):
            page.keyboard.press(key)
        page.wait_for_function("shown => document.querySelector('#prompt').innerText !== shown", arg=shown)
    page.get_by_text("nothing left").wait_for()
    page.wait_for_function("document.querySelector('#outbox').hidden")
    context.close()
