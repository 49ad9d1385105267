"""Shapes of data against TRL, which made them: what it cuts and unpairs, and what is read here, are the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tuneful.data.formats import detect, read_comparisons, read_unpaired
from tuneful.data.preferences import comparison_row
from tuneful.records import Comparison, Prompt

trl = pytest.importorskip("trl.data_utils", reason="parity is with TRL")


def written(folder: Path, rows: list[Any]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trl")


words = st.lists(st.sampled_from(["a", "ab", "b", ",", " ", "\n"]), min_size=1, max_size=6).map("".join)


@given(words, words, words)
def test_text_is_cut_where_trl_cuts_it(folder: Path, prompt: str, better: str, worse: str) -> None:
    """But for rows that TRL cuts into prompts or answers of nothing, which are skipped here."""
    row = {"chosen": prompt + better, "rejected": prompt + worse}
    assume(row["chosen"].strip() and row["rejected"].strip())
    told: list[str] = []
    found = read_comparisons(written(folder, [row]), on_skip=told.append)
    cut = trl.extract_prompt(row)
    apart = not row["chosen"].startswith(row["rejected"]) and not row["rejected"].startswith(row["chosen"])
    if apart and all(side.strip() for side in cut.values()):
        assert not told
        assert found == [Comparison(Prompt(cut["prompt"]), cut["chosen"], cut["rejected"])]
    else:
        assert not found or not apart
        assert len(found) + len(told) == 1


def messages(*said: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)]


turn = st.sampled_from(["Hi.", "Why?", "Sun."])


@given(st.lists(turn, min_size=1, max_size=5).filter(lambda said: len(said) % 2 == 1), turn, turn)
def test_conversations_are_cut_where_trl_cuts_them(folder: Path, said: list[str], better: str, worse: str) -> None:
    row = {"chosen": messages(*said, better), "rejected": messages(*said, worse)}
    found = read_comparisons(written(folder, [row]), on_skip=lambda _: None)
    cut = trl.extract_prompt(row)
    assert cut["prompt"] == messages(*said)
    if better == worse:
        assert not found
    else:
        [pair] = found
        assert pair.prompt.as_json() == cut["prompt"]
        assert [pair.chosen] == [message["content"] for message in cut["chosen"]]
        assert [pair.rejected] == [message["content"] for message in cut["rejected"]]


@pytest.mark.parametrize("ask", [Prompt, Prompt.user], ids=["text", "messages"])
def test_what_trl_unpairs_is_read_and_paired_again(tmp_path: Path, ask: Callable[[str], Prompt]) -> None:
    datasets = pytest.importorskip("datasets")
    pairs = [Comparison(ask("The sky is"), " blue.", " green."), Comparison(ask("The sun is"), " far.", " near.")]
    rows = [{key: comparison_row(pair)[key] for key in ("prompt", "chosen", "rejected")} for pair in pairs]
    path = written(tmp_path, list(trl.unpair_preference_dataset(datasets.Dataset.from_list(rows))))
    assert detect(path) == "unpaired"
    assert read_comparisons(path) == pairs
    both = {(pair.prompt, text, text == pair.chosen) for pair in pairs for text in (pair.chosen, pair.rejected)}
    assert {(row.prompt, row.completion, row.label) for row in read_unpaired(path)} == both
