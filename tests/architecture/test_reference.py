"""The reference pages say what the code says, and the recipes shown in pages can be loaded."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from markdown_it import MarkdownIt

from tuneful.pipeline.recipe import load_recipe

DOCS = Path(__file__).resolve().parents[2] / "docs"
RECIPES = [
    pytest.param(token.content, id=f"{page.name}:{(token.map or [0])[0] + 1}")
    for page in sorted(DOCS.rglob("*.md"))
    for token in MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8"))
    if token.type == "fence" and token.info == "toml" and "[[stage]]" in token.content
]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["recipes.md", "commands.md", "rest.md"])
def test_generated_page_is_up_to_date(generate: ModuleType, page: str) -> None:
    written = (DOCS / "reference" / page).read_text(encoding="utf-8")
    assert written == generate.pages()[page], "run python docs/generate.py"


def test_settings_are_shown_as_a_recipe_writes_them(generate: ModuleType) -> None:
    page = generate.pages()["recipes.md"]
    assert "| `clip` | number | `0.2` | The probability ratio is held within [1 - clip, 1 + clip]. |" in page
    assert "| `reward` | text or [LengthRule](#lengthrule) or " in page
    assert "| `scale` | list of number | `[1, 10]` |" in page
    assert '| `value` | `"head"` or `"adapter"` or `"model"` | `"head"` |' in page
    assert "| `optimization` | [Optimization](#optimization) | `{ learning_rate = 3e-6 }` |" in page
    assert "| `measures` | list of text | `[]` |" in page


def test_flags_are_shown_as_they_are_typed(generate: ModuleType) -> None:
    page = generate.pages()["commands.md"]
    assert "## tuneful label export" in page
    assert "| `--set` | text, may be repeated |  | Override a setting: stage.setting=value. |" in page
    assert "| `--in` | path | required | Rows to read: JSONL, also .gz, or Parquet. |" in page
    assert "| `--seed` | whole number | `0` | Everything random follows from it. |" in page


def test_routes_are_shown_with_scope_body_and_answer(generate: ModuleType) -> None:
    page = generate.pages()["rest.md"]
    _, _, submit = page.partition("### POST /a/{assignment_id}/submit\n")
    assert "Scope `label`. Takes [Word](#word). Answers [Received](#received)." in submit.splitlines()[1]
    assert '| `note` | text | `""` | For the project\'s lead. |' in page
    whats = '`what` is `"preferences"` or `"unpaired"` or `"judgments"` or `"completions"` or `"decisions"`.'
    assert f"{whats} Answers lines of JSON." in page
    assert "| `seconds` | number or null | `null` | How long it took. |" in page


@pytest.mark.parametrize("text", RECIPES)
def test_recipes_in_pages_load(text: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(text, encoding="utf-8")
    assert load_recipe(tmp_path / "recipe.toml").stages
