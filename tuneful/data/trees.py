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
from tuneful.errors import DataError
from tuneful.records import Candidates, Comparison, Completion, Demonstration, Message, Prompt, content_hash

_ROLES = {"prompter": "user", "assistant": "assistant"}


@dataclass(frozen=True, slots=True)
class _Reply:
    """An answer of the assistant."""

    completion: Completion
    rank: int | None


@dataclass(frozen=True, slots=True)
class RankedReplies:
    """A turn of the prompter with the replies to it, and the rank of each: 0 is the best, None was not ranked."""

    candidates: Candidates
    ranks: tuple[int | None, ...]


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


def rankings(rows: Iterable[Row], on_skip: Skip) -> Iterator[RankedReplies]:
    """Every turn of the prompter with its replies and their ranks, where two of them are ranked at least."""
    for prompt, replies in _turns(rows, on_skip):
        ranks = tuple(reply.rank for reply in replies)
        if len(ranks) - ranks.count(None) >= 2:
            yield RankedReplies(Candidates(prompt, tuple(reply.completion for reply in replies)), ranks)


def demonstrations(rows: Iterable[Row], on_skip: Skip) -> Iterator[Demonstration]:
    """The best reply to every turn: the only one, or the one that is ranked best."""
    for prompt, replies in _turns(rows, on_skip):
        ranked = [reply for reply in replies if reply.rank is not None]
        if ranked:
            best = min(ranked, key=lambda reply: reply.rank or 0)
            yield Demonstration(prompt, best.completion.text)
        elif len(replies) == 1:
            yield Demonstration(prompt, replies[0].completion.text)


def tree_row(tree_id: str, ranked: RankedReplies) -> dict[str, Any]:
    """The tree of one ranking: the turns of its prompt, each the reply to the one before, and the replies to the last.

    A prompt of plain text is one turn of the prompter. Raises DataError for a conversation that does not go from
    user to assistant and back, beginning with the user, and for a turn or reply without text.
    """
    prompt = ranked.candidates.prompt
    turns = (Message("user", prompt.content),) if isinstance(prompt.content, str) else prompt.content
    speakers = ["user", "assistant"] * (len(turns) // 2) + ["user"]
    if [turn.role for turn in turns] != speakers:
        raise DataError(
            f"a tree has no place for the turns {', '.join(turn.role for turn in turns)}; "
            "they must go from user to assistant and back"
        )
    completions = ranked.candidates.completions
    if not all(text.strip() for text in (*(turn.content for turn in turns), *(one.text for one in completions))):
        raise DataError("a tree has no place for a turn or reply without text; leave it out")
    ids = [content_hash("turn", tree_id, depth) for depth in range(len(turns))]
    replies = [
        _node(one.id or content_hash("reply", tree_id, n), one.text, "assistant", ids[-1], rank=rank, model=one.model)
        for n, (one, rank) in enumerate(zip(completions, ranked.ranks, strict=True))
    ]
    for depth in reversed(range(len(turns))):
        parent = ids[depth - 1] if depth else None
        replies = [_node(ids[depth], turns[depth].content, turns[depth].role, parent, replies)]
    return {"message_tree_id": tree_id, "tree_state": "ready_for_export", "prompt": replies[0]}


def _node(
    message_id: str,
    text: str,
    role: str,
    parent_id: str | None,
    replies: Iterable[dict[str, Any]] = (),
    *,
    rank: int | None = None,
    model: str | None = None,
) -> dict[str, Any]:
    """A message as Open-Assistant writes it; what is not known, such as the language, is left out."""
    [speaker] = (theirs for theirs, ours in _ROLES.items() if ours == role)
    known = {"parent_id": parent_id, "rank": rank, "model_name": model}
    return {
        "message_id": message_id,
        **{key: value for key, value in known.items() if value is not None},
        "text": text,
        "role": speaker,
        "review_result": True,
        "deleted": False,
        "replies": list(replies),
    }


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
