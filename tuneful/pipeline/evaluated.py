"""The prompts that a pipeline evaluates on, and what would give them away if it were trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from tuneful.data.formats import read_prompts
from tuneful.data.overlap import Seen
from tuneful.data.sources import resolve
from tuneful.data.splits import ALLOWED, R, prompt_of, split_key, split_of
from tuneful.records import Prompt


@dataclass(frozen=True)
class Evaluated:
    """All prompts of the files `held_out`, and those in the dev and test splits of the files `judged`.

    Files are read when their prompts are first asked for.
    """

    held_out: tuple[str, ...]
    judged: tuple[str, ...]
    shares: Mapping[str, float]

    def without_held_out(self, records: Sequence[R]) -> list[R]:
        """Those records whose first user turn is in no held-out file."""
        return [record for record in records if split_key(prompt_of(record)) not in self._held_out_keys]

    def without_near_copies(self, records: Sequence[R]) -> list[R]:
        """The records of one source, less those in splits to train on that overlap with a prompt evaluated on.

        These are the prompts of this object and those in the dev and test splits of the source itself.
        """
        trains = [self._trains(prompt_of(record)) for record in records]
        if not any(trains):
            return list(records)
        own = Seen(prompt_of(record) for record, train in zip(records, trains, strict=True) if not train)
        return [
            record
            for record, train in zip(records, trains, strict=True)
            if not (train and (own.overlaps(prompt_of(record)) or self._seen.overlaps(prompt_of(record))))
        ]

    def _trains(self, prompt: Prompt) -> bool:
        return split_of(prompt, self.shares) in ALLOWED["train"]

    @cached_property
    def _held_out_prompts(self) -> list[Prompt]:
        return [prompt for name in self.held_out for prompt in _prompts(name)]

    @cached_property
    def _held_out_keys(self) -> set[str]:
        return {split_key(prompt) for prompt in self._held_out_prompts}

    @cached_property
    def _seen(self) -> Seen:
        judged = [prompt for name in self.judged if name not in self.held_out for prompt in _prompts(name)]
        return Seen([*self._held_out_prompts, *(prompt for prompt in judged if not self._trains(prompt))])


def _prompts(name: str) -> list[Prompt]:
    """The prompts of a file or data set; what is skipped there is told where it is read for its own sake."""
    return read_prompts(resolve(name), on_skip=lambda _: None)
