"""Summaries that people wrote or preferred.

DialogSum: `{"dialogue", "summary"}`, or `summary1` to `summary3` where several people wrote one. OpenAI's comparisons
on Reddit's TL;DR (Stiennon et al. 2020, arXiv 2009.01325): `{"info": {"post"}, "summaries": [{"text"}], "choice"}`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tuneful.data.fields import text_in, text_of
from tuneful.data.row import Row, Skip
from tuneful.records import Comparison, Demonstration, Prompt

WRITTEN = ("summary", "summary1", "summary2", "summary3")

REQUEST = "Summarize the following conversation.\n\n{dialogue}\n\nSummary:"
"""How a summary of a dialogue is asked for, as in the lab that tunes FLAN-T5 on DialogSum."""

POST = "SUBREDDIT: r/{subreddit}\n\nTITLE: {title}\n\nPOST: {post}\n\nTL;DR:"
"""How a summary of a post is asked for, as in the authors' own runs: text, which the answer goes on from."""


def dialogues(rows: Iterable[Row], _: Skip) -> Iterator[Prompt]:
    """The request for a summary of every dialogue."""
    return (_request(row) for row in rows)


def demonstrations(rows: Iterable[Row], _: Skip) -> Iterator[Demonstration]:
    """One for every summary of every dialogue."""
    for row in rows:
        written = [name for name in WRITTEN if row.fields.get(name) is not None]
        if not written:
            raise row.error("missing", "every dialogue needs a summary, or summary1 and so on", "summary")
        for name in written:
            yield Demonstration(_request(row), text_in(row, name))


def comparisons(rows: Iterable[Row], on_skip: Skip) -> Iterator[Comparison]:
    """The two summaries of every post, the chosen first; what is no post, such as news, is skipped."""
    for row in rows:
        info, offered, choice = row.value("info"), row.value("summaries"), row.value("choice")
        if not isinstance(info, dict) or info.get("post") is None:
            on_skip(row.skipped("it summarizes no post"))
            continue
        if not isinstance(offered, list) or len(offered) != 2 or not all(isinstance(s, dict) for s in offered):
            raise row.error("expected two summaries", 'write [{"text": ...}, {"text": ...}]', "summaries")
        if type(choice) is not int or choice not in (0, 1):
            raise row.error(f"got {choice!r}", "0 or 1: which of the summaries was chosen", "choice")
        texts = [text_of(row, summary.get("text"), f"summaries[{i}].text") for i, summary in enumerate(offered)]
        if texts[0] == texts[1]:
            on_skip(row.skipped("both summaries are equal"))
            continue
        parts = {key: text_of(row, info.get(key), f"info.{key}") for key in ("subreddit", "title", "post")}
        yield Comparison(Prompt(POST.format(**parts)), texts[choice], texts[1 - choice])


def _request(row: Row) -> Prompt:
    return Prompt.user(REQUEST.format(dialogue=text_in(row, "dialogue")))
