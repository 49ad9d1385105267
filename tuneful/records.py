"""The nouns of the field as frozen records: what files, stores and stages hand to each other.

Nothing here knows about tensors, models or files. Ids are content hashes unless somebody gave one, so the same prompt
has the same id in every run and on every machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Finish = Literal["eos", "stop", "length", "abort"]
"""Why a completion ended: its end token, a stop string, the length limit, or a failure."""


def content_hash(*parts: object) -> str:
    """First 16 hex digits of the SHA-256 of `parts` as canonical JSON."""
    canonical = json.dumps(parts, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model is asked: plain text, or the messages of a conversation whose last turn is not the assistant's."""

    content: str | tuple[Message, ...]

    @classmethod
    def user(cls, text: str) -> Prompt:
        """A conversation of one user turn."""
        return cls((Message("user", text),))

    @classmethod
    def from_json(cls, value: str | list[dict[str, str]]) -> Prompt:
        """The inverse of `as_json`, for rows that were checked when they were written."""
        return cls(value if isinstance(value, str) else tuple(Message(m["role"], m["content"]) for m in value))

    @property
    def id(self) -> str:
        return content_hash("prompt", self.as_json())

    @property
    def first_turn(self) -> str:
        """The first user turn; prompts that share it stay in one split (docs/decisions/0004)."""
        if isinstance(self.content, str):
            return self.content
        return next((m.content for m in self.content if m.role == "user"), self.content[0].content)

    @property
    def text(self) -> str:
        """The prompt for people to read: plain text as it is, a conversation as `role: content` lines."""
        if isinstance(self.content, str):
            return self.content
        if len(self.content) == 1:
            return self.content[0].content
        return "\n\n".join(f"{m.role}: {m.content}" for m in self.content)

    def as_json(self) -> str | list[dict[str, str]]:
        """The form a JSONL row holds."""
        if isinstance(self.content, str):
            return self.content
        return [{"role": m.role, "content": m.content} for m in self.content]


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer to one prompt. `tokens` are the ids as sampled (end token included) when a model of ours made it."""

    text: str
    tokens: tuple[int, ...] | None = None
    finish: Finish | None = None
    model: str | None = None
    id: str = ""

    @property
    def ended(self) -> bool:
        """False for an answer that was cut off, at the length limit or by a stop from outside."""
        return self.finish not in ("length", "abort")


@dataclass(frozen=True, slots=True)
class Candidates:
    """A prompt with the completions offered for it; every completion has an id that is unique within the file."""

    prompt: Prompt
    completions: tuple[Completion, ...]


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A prompt and the answer to imitate."""

    prompt: Prompt
    completion: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two completions of one prompt, the preferred one first.

    p: probability that `chosen` is preferred, in [1/2, 1] when it comes from a consensus. weight: share of its prompt's
    total weight. group: comparisons with the same group belong to one prompt and stay in one batch element (None: the
    prompt's id). margin: how much better chosen was rated, in the loss's units.
    """

    prompt: Prompt
    chosen: str
    rejected: str
    p: float = 1.0
    weight: float = 1.0
    group: str | None = None
    margin: float | None = None

    @property
    def group_key(self) -> str:
        """What the comparison shares its weight with: its group, else its prompt."""
        return self.group or self.prompt.id


@dataclass(frozen=True, slots=True)
class Ranking:
    """One rater's order of several answers to a prompt: 1 is best, equal numbers tie, None was not ranked.

    slope: how sharply the rater tells better from worse, beside a careful one; below 0 reads the scale upside down.
    """

    prompt: Prompt
    completions: tuple[str, ...]
    ranks: tuple[int | None, ...]
    slope: float = 1.0


@dataclass(frozen=True, slots=True)
class UnpairedPreference:
    """One answer to a prompt and whether it is a good one, said without another to compare it with.

    p: probability that it is good, where more is known than the label. weight: what it counts beside other answers.
    """

    prompt: Prompt
    completion: str
    label: bool
    p: float | None = None
    weight: float = 1.0

    @property
    def goodness(self) -> float:
        """The probability that it is good; without `p`, what the label says."""
        return float(self.label) if self.p is None else self.p


RaterKind = Literal["human", "ai", "simulated"]
JudgmentKind = Literal["ranking", "comparison", "binary", "rating", "demonstration"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgment:
    """One rater's word on one item: a JSONL row, and later a row of the store (docs/decisions/0003).

    `completions` are ids in stored order; `ranks` is aligned with them: 1 is best, equal numbers tie, None was not
    ranked. `shown_order` is the order on the rater's screen. `text` is what the rater wrote: a demonstration.
    `note` is what the rater told the project's lead. `replaces` names the earlier revision of this judgment.
    """

    id: str
    item: str
    prompt: str
    completions: tuple[str, ...]
    rater: str
    rater_kind: RaterKind = "human"
    kind: JudgmentKind = "ranking"
    ranks: tuple[int | None, ...] = ()
    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    values: Mapping[str, float] = field(default_factory=dict)
    text: str = ""
    criterion: str = "preference"
    shown_order: tuple[str, ...] = ()
    instructions: str = ""
    seconds: float | None = None
    created_at: str = ""
    replaces: str | None = None
    note: str = ""
