"""The pages hold: links lead somewhere, code marked runnable runs, recipes are TOML.

A block runs when the line before its fence is `<!-- runnable -->`; the blocks of one page run in order and share names.
One tutorial is walked as a reader does: "Save this as `name`:" saves the block below it, and every command is run.
"""

from __future__ import annotations

import json
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

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


@pytest.mark.parametrize("drawing", sorted(ROOT.glob("docs/images/*.svg")), ids=lambda path: path.name)
def test_drawings_are_svg(drawing: Path) -> None:
    """A browser shows nothing of one that is not well-formed."""
    assert ElementTree.parse(drawing).getroot().tag == "{http://www.w3.org/2000/svg}svg"


@pytest.mark.parametrize("page", [p for p in PAGES if runnable(p)], ids=lambda page: page.name)
def test_marked_code_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": page.stem}
    for block in runnable(page):
        exec(compile(block, str(page), "exec"), names)


def walk(page: Path) -> Iterator[tuple[str, str]]:
    """What a reader does, in order: (name, text) of a file that is saved, ("$", line) of a command that is run."""
    said = ""
    for token in tokens(page):
        if token.type == "inline":
            said = token.content
        elif token.type == "fence" and token.info == "console":
            yield from (("$", line[2:]) for line in token.content.splitlines() if line.startswith("$ "))
        elif token.type == "fence" and (name := re.search(r"Save this as `([^`]+)`[^.]*:$", said)):
            yield name[1], token.content
            said = ""


@pytest.fixture(scope="module")
def demo_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stands for `demo:base`: its tokenizer and its shape made small, and random weights in place of a minute's
    training."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tuneful.demo.tokenizer import build_tokenizer
    from tuneful.demo.world import BASE_CONFIG

    folder = tmp_path_factory.mktemp("demo-base")
    build_tokenizer().save_pretrained(folder)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig(**BASE_CONFIG | small)).save_pretrained(folder)
    return folder


def test_your_reward_walks(
    demo_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tutorial's own files and commands, with fewer steps and answers, on a base that has learned nothing."""
    from tuneful.cli.main import main

    base = json.dumps(str(demo_base))
    samples = [f"samples.model={base}", "samples.limit=8", "samples.max_new_tokens=8"]
    tune = [f"ppo.model={base}", "ppo.num_steps=2", "ppo.prompts_per_step=8", "ppo.max_new_tokens=8"]
    tune += ["ppo.evaluate_prompts=8", f"evaluate.before={base}", "evaluate.limit=8", "evaluate.max_new_tokens=8"]
    smaller = {"first.toml": samples, "tune.toml": tune}
    monkeypatch.chdir(tmp_path)
    ran = []
    for name, text in walk(ROOT / "docs/tutorials/your-reward.md"):
        if name != "$":
            Path(name).write_text(text, encoding="utf-8")
            continue
        program, *arguments = shlex.split(text)
        if arguments[0] == "run":
            arguments += [part for setting in smaller[arguments[1]] for part in ("--set", setting)]
        with monkeypatch.context() as called:
            called.setattr(sys, "argv", arguments if program == "python" else [program, *arguments])
            if program == "python":
                runpy.run_path(arguments[0], run_name="__main__")
            else:
                with pytest.raises(SystemExit) as ended:
                    main()
                assert not ended.value.code, text
        ran.append((text, capsys.readouterr().out))
    assert [text for text, _ in ran if "run " in text] == [
        "tuneful run first.toml --out runs/first --seed 1",
        "tuneful run tune.toml --out runs/tuned",
        "tuneful run tune.toml --out runs/mended",
    ]
    for text, out in ran:
        if text.startswith("python read.py"):
            assert re.search(r"^true_utility +-?\d\.\d\d -> ", out, re.MULTILINE)
            assert re.search(r"^after: \d+% of the answers say not$", out, re.MULTILINE)
    trained_with = [json.loads(Path("runs", run, "ppo/run.json").read_text())["data"] for run in ("tuned", "mended")]
    assert trained_with[0]["./my_reward.py"] != trained_with[1]["./my_reward.py"]


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


def test_walker_of_pages(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        f"# A page\n\nSave this as `a.py`, or not:\n\n{RUNNABLE}\n```python\nx = 1\n```\n\nSee.\n\n"
        "```python\nnot saved\n```\n\n```console\n$ run a\noutput\n$ run b\n```\n",
        encoding="utf-8",
    )
    assert list(walk(page)) == [("a.py", "x = 1\n"), ("$", "run a"), ("$", "run b")]
