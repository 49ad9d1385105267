"""Conversation trees as Open-Assistant publishes them: `{"message_tree_id", "prompt": {"text", "role", "replies"}}`.

Turns of the prompter and of the assistant follow each other; the assistant's replies to one turn carry a `rank` each, 0
the best, which is the consensus of several people (Köpf et al. 2023, arXiv 2304.07327). So every turn of the prompter
whose replies are ranked is a ranking, and its prompt is the conversation down to it.

Messages that were deleted or did not pass review are skipped, with all that follows them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tuneful.data.fields import text_of
from tuneful.data.rankings import comparisons_from_ranking
from tuneful.data.row import Row, Skip, json_kind
from tuneful.records import Candidates, Comparison, Completion, Demonstration, Message, Prompt

_ROLES = {"prompter": "user", "assistant": "assistant"}


@dataclass(frozen=True, slots=True)
class _Reply:
    """An answer of the assistant."""

    completion: Completion
    rank: int | None


def prompts(rows: Iterable[Row], on_skip: Skip) -> Iterator[Prompt]:
    """The conversation down to every turn of the prompter, answered or not."""
    return (prompt for prompt, _ in _turns(rows, on_skip))


def candidates(rows: Iterable[Row], on_skip: Skip) -> Iterator[Candidates]:
    """Every turn of the prompter with the replies to it, which keep their ids."""
    for prompt, replies in _turns(rows, on_skip):
        if replies:
            yield Candidates(prompt, tuple(reply.completion for reply in replies))


def comparisons(rows: Iterable[Row], on_skip: Skip) -> Iterator[Comparison]:
    """All pairs of ranked replies to one turn, sharing weight 1; ties are dropped."""
    for prompt, replies in _turns(rows, on_skip):
        texts: dict[str, int] = {}  # of replies that say the same, the first stands for all
        for reply in replies:
            if reply.rank is not None:
                texts.setdefault(reply.completion.text, reply.rank)
        yield from comparisons_from_ranking(prompt, list(texts), list(texts.values()))


def demonstrations(rows: Iterable[Row], on_skip: Skip) -> Iterator[Demonstration]:
    """The best reply to every turn: the only one, or the one that is ranked best."""
    for prompt, replies in _turns(rows, on_skip):
        ranked = [reply for reply in replies if reply.rank is not None]
        if ranked:
            best = min(ranked, key=lambda reply: reply.rank or 0)
            yield Demonstration(prompt, best.completion.text)
        elif len(replies) == 1:
            yield Demonstration(prompt, replies[0].completion.text)


def _turns(rows: Iterable[Row], on_skip: Skip) -> Iterator[tuple[Prompt, list[_Reply]]]:
    """Every turn of the prompter, as the conversation that ends with it, and the assistant's replies to it."""
    for row in rows:
        # Each message with where it stands and the conversation before it; the last is looked at next.
        ahead: list[tuple[Any, str, tuple[Message, ...]]] = [(row.value("prompt"), "prompt", ())]
        while ahead:
            node, field, before = ahead.pop()
            if (fault := _unusable(row, node, field)) is not None:
                on_skip(row.skipped(fault))
                continue
            said = _message(row, node, field, answers=bool(before) and before[-1].role == "user")
            replies = node.get("replies") or []
            if not isinstance(replies, list):
                raise row.error(f"expected a list, got {json_kind(replies)}", "list the replies", f"{field}.replies")
            following = [(reply, f"{field}.replies[{i}]") for i, reply in enumerate(replies)]
            conversation = (*before, said)
            ahead += [(reply, place, conversation) for reply, place in reversed(following)]
            if said.role == "user":
                used = [(reply, place) for reply, place in following if _unusable(row, reply, place) is None]
                yield Prompt(conversation), [_reply(row, reply, place) for reply, place in used]


def _unusable(row: Row, node: Any, field: str) -> str | None:
    """Why a message is left out; None when it is not. Raises DataError for what is no message."""
    if not isinstance(node, dict):
        raise row.error(f"expected a message, got {json_kind(node)}", 'write {"text": ..., "role": ...}', field)
    if node.get("deleted"):
        return f"{field} was deleted"
    return None if node.get("review_result") is True else f"{field} did not pass review"


def _message(row: Row, node: dict[str, Any], field: str, *, answers: bool) -> Message:
    expected = "assistant" if answers else "prompter"
    if node.get("role") != expected:
        raise row.error(f"got {node.get('role')!r}", f'"{expected}" speaks here', f"{field}.role")
    return Message(_ROLES[expected], text_of(row, node.get("text"), f"{field}.text"))


def _reply(row: Row, node: dict[str, Any], field: str) -> _Reply:
    said = _message(row, node, field, answers=True)
    rank, model, id_ = (node.get(key) for key in ("rank", "model_name", "message_id"))
    if rank is not None and type(rank) is not int:
        raise row.error(f"expected a whole number, got {json_kind(rank)}", "0 is the best", f"{field}.rank")
    return _Reply(
        Completion(
            said.content,
            model=None if model is None else text_of(row, model, f"{field}.model_name"),
            id="" if id_ is None else text_of(row, id_, f"{field}.message_id"),
        ),
        rank,
    )
