"""The pages hold: links lead somewhere, code marked runnable runs, recipes are TOML.

A block runs when the line before its fence is `<!-- runnable -->`; the blocks of one page run in order and share names.
"""

from __future__ import annotations

import re
import tomllib
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("recipes/*.md")])
RUNNABLE = "<!-- runnable -->"

pages = pytest.mark.parametrize("page", PAGES, ids=[p.relative_to(ROOT).as_posix() for p in PAGES])


def tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))


def links(page: Path) -> list[str]:
    """Targets of links and images, code left out."""
    inner = (child for token in tokens(page) for child in token.children or ())
    targets = (child.attrGet("href") or child.attrGet("src") for child in inner)
    return [str(target) for target in targets if target]


def anchors(page: Path) -> set[str]:
    """The anchors that headings get: lower case, punctuation dropped, spaces to hyphens."""
    parsed = tokens(page)
    titles = [parsed[i + 1].content for i, token in enumerate(parsed) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def runnable(page: Path) -> list[str]:
    """The marked Python blocks, each behind as many empty lines as stand above it, so that tracebacks name the line."""
    parsed = tokens(page)
    blocks = [(fence, before) for before, fence in pairwise(parsed) if fence.type == "fence"]
    marked = [fence for fence, before in blocks if before.content.strip() == RUNNABLE]
    return ["\n" * ((fence.map or [0])[0] + 1) + fence.content for fence in marked]


@pages
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("page", [p for p in PAGES if runnable(p)], ids=lambda page: page.name)
def test_marked_code_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": page.stem}
    for block in runnable(page):
        exec(compile(block, str(page), "exec"), names)


def test_every_mark_stands_before_a_block() -> None:
    """A mark that has lost its fence would silently run nothing."""
    lost = [p.name for p in PAGES if p.read_text(encoding="utf-8").count(f"\n{RUNNABLE}\n") != len(runnable(p))]
    assert not lost


def test_recipes_are_toml() -> None:
    for recipe in (ROOT / "recipes").rglob("*.toml"):
        assert tomllib.loads(recipe.read_text(encoding="utf-8")), recipe


def test_pages_of_the_site_stay_inside_it() -> None:
    """The built site holds `docs/` alone, so a link out of it works in the repository and breaks there."""
    docs = ROOT / "docs"
    leaving = [
        f"{page.name}: {link}"
        for page in docs.rglob("*.md")
        for link in links(page)
        if not re.match(r"[a-z]+:|#", link)
        and not (page.parent / link.partition("#")[0]).resolve().is_relative_to(docs)
    ]
    assert not leaving


def test_reader_of_pages(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A page: of *two* blocks\n\n[a](b.md#c) `[not](a-link)`\n\n"
        f"```python\nnot run\n```\n\n{RUNNABLE}\n```python\nx = 1\n```\n",
        encoding="utf-8",
    )
    assert links(page) == ["b.md#c"]
    assert anchors(page) == {"a-page-of-two-blocks"}
    assert [(block.count("\n"), block.strip()) for block in runnable(page)] == [(11, "x = 1")]
