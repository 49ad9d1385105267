"""Takes the pictures of the labeling server's pages that the documentation shows: docs/images/*.png.

python docs/screenshots.py fills a store from the demo world, serves it as `tuneful web` does, and looks at it with
Chromium (CHROMIUM names another one than /usr/bin/chromium). What is
said in the store is the same each time; the order in which a labeler sees answers is drawn anew.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from numpy.random import default_rng
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from tuneful.data.completions import with_ids
from tuneful.demo.grammar import prompts, sample_answer
from tuneful.demo.labelers import simulate
from tuneful.demo.toxicity import toxicity_a, toxicity_b
from tuneful.feedback.access import accept, invite_first_admin, sign_in
from tuneful.feedback.decisions import decide
from tuneful.feedback.items import add_items
from tuneful.feedback.overview import agreement
from tuneful.feedback.projects import add_rater, create_project, publish_instructions
from tuneful.feedback.recording import record
from tuneful.feedback.store import Store
from tuneful.records import Candidates, Completion, Judgment
from tuneful.web.security import SESSION_COOKIE

IMAGES: Final = Path(__file__).parent / "images"
CHROMIUM: Final = os.environ.get("CHROMIUM", "/usr/bin/chromium")
PEOPLE: Final = ("Ada", "Bo", "Cy", "Di", "Eli", "Fay", "Gus", "Hal", "Ira", "Jo")
BEGIN: Final = datetime(2026, 11, 16, 8, tzinfo=UTC)

FIRST: Final = """\
Which answer **helps** the person most?

- Something they can do is better than sympathy.
- A wrong remedy is worse than none.
"""
SECOND: Final = FIRST + "- Praise of the question is no help. It costs the reader time.\n"

NUM_JUDGED: Final = 160
NUM_OPEN: Final = 120
NUM_COLOURS: Final = 64
WIDTH: Final = 1280


def fill(store: Store) -> tuple[str, str, str]:
    """A project that ten people have worked on for five days: its id, and the ids of its lead and of a new labeler."""
    began = BEGIN.timestamp()
    first = invite_first_admin(store, now=began)
    assert first is not None
    lead = accept(store, first, login="lea", password="correct horse", name="Lea", now=began)
    project = create_project(store, "Household", criteria=("helpful",), now=began)
    publish_instructions(store, project, FIRST, by=lead, now=began)
    publish_instructions(store, project, SECOND, by=lead, now=(BEGIN + timedelta(days=2, hours=1)).timestamp())
    asked = answered(NUM_JUDGED + NUM_OPEN)
    judged, open_ = asked[:NUM_JUDGED], [item for item in asked[NUM_JUDGED:] if not is_rude(item)]
    record(store, project, judged, people_s(judged), now=began)
    add_items(store, project, open_, overlap=4, now=began)
    disputed = agreement(store, project).hardest[1].pair.item
    decide(store, disputed, by=lead, ranks=(1, 2, 3, 3), why="The first can be done.", now=began + 4 * 86_400)
    labeler = add_rater(store, project, name="Eve", now=began)
    return project, lead, labeler


def answered(num: int) -> list[Candidates]:
    """Questions of the demo world with four answers each."""
    rng = default_rng(0)
    return with_ids(
        Candidates(prompt, tuple(Completion(sample_answer(prompt, rng)) for _ in range(4)))
        for prompt in prompts(0)[:num]
    )


def is_rude(item: Candidates) -> bool:
    """Whether an answer insults: a picture needs none."""
    return any(toxicity_a(one.text) or toxicity_b(one.text) for one in item.completions)


def people_s(asked: list[Candidates]) -> list[Judgment]:
    """What the demo world's labelers say, spread over working hours, as if they were people with names."""
    said = simulate(asked, labelers_per_item=4, seed=0).judgments
    rng = default_rng(1)
    hours = sorted(24 * rng.integers(5, size=len(said)) + 9 * rng.random(len(said)))
    return [
        replace(
            one,
            rater=PEOPLE[int(one.rater.removeprefix("rater-")) - 1],
            rater_kind="human",
            criterion="helpful",
            instructions="",
            created_at=(BEGIN + timedelta(hours=float(after))).isoformat(),
        )
        for one, after in zip(said, hours, strict=True)
    ]


@contextmanager
def served(file: Path) -> Iterator[str]:
    """The URL at which `tuneful web` shows the store while the block runs."""
    command = [sys.executable, "-m", "tuneful", "web", "--store", str(file), "--port", "0", "--no-worker"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            found = re.search(r"http://\S+", server.stdout.readline())
            assert found is not None
            yield found[0]
        finally:
            server.terminate()


def take(page: Page, name: str, *, height: int, below: str | None = None) -> None:
    """The top of the page, or what stands from the element `below` on, as docs/images/NAME.png."""
    if below is not None:
        page.locator(below).first.evaluate("element => window.scrollTo(0, element.getBoundingClientRect().top - 12)")
    page.set_viewport_size({"width": WIDTH, "height": height})
    page.wait_for_load_state("networkidle")
    file = IMAGES / f"{name}.png"
    page.screenshot(path=file)
    Image.open(file).convert("RGB").quantize(NUM_COLOURS).save(file, optimize=True)


def labeling(page: Page, place: str) -> None:
    page.goto(place)
    page.locator("#cards > *").first.wait_for()
    page.get_by_role("button", name="Open them").click()
    page.keyboard.press("Escape")
    for key in ("b", "d", "=", "a"):
        page.keyboard.press(key)


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with TemporaryDirectory() as folder, sync_playwright() as started:
        file = Path(folder) / "judgments.db"
        store = Store.open(file)
        project, lead, labeler = fill(store)
        now = datetime.now(UTC).timestamp()
        secrets = {rater: sign_in(store, rater, now=now) for rater in (lead, labeler)}
        polite = {item.prompt.text for item in answered(NUM_JUDGED) if not is_rude(item)}
        hardest = agreement(store, project).hardest
        shown = next((one for one in hardest if one.prompt in polite), hardest[0]).pair.item
        store.close()
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        with served(file) as url:
            for rater, secret in secrets.items():
                for scheme in ("light", "dark"):
                    context = browser.new_context(
                        viewport={"width": WIDTH, "height": 720}, color_scheme=scheme, locale="en-GB"
                    )
                    context.add_cookies([{"name": SESSION_COOKIE, "value": secret, "url": url}])
                    page = context.new_page()
                    if rater == labeler:
                        labeling(page, f"{url}/p/{project}")
                        take(page, "labeling" if scheme == "light" else "labeling-dark", height=560)
                    elif scheme == "light":
                        about = f"{url}/lead/{project}"
                        page.goto(about)
                        take(page, "lead", height=820)
                        page.goto(f"{about}/quality")
                        take(page, "quality", height=820)
                        take(page, "agreement", height=820, below="#criterion-1")
                        page.goto(f"{about}/items")
                        take(page, "items", height=640)
                        page.goto(f"{about}/items/{shown}")
                        take(page, "item", height=820)
                    context.close()
        browser.close()


if __name__ == "__main__":
    main()
