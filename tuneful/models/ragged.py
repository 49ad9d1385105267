"""Rows of prompt and completion as one flat list of tokens, so that a linear layer sees no padding.

A row's prefix is its prompt without the last token; its own tokens are that one and those of the completion. All own
tokens but the last predict the completion (`predicting=True` leaves that one out); a reward is read at the last. So no
state of a prefix is read, and rows with equal prompts share one, exactly:

    rows ([7, 9, 4], [8, 2]) and ([7, 9, 4], [5])   ->   one prefix [7, 9]   own tokens [4, 8, 2], [4, 5]

Only attention sees rows, one by one (functional/attention.py) or padded on the right.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain, pairwise
from typing import Any

import torch
from torch import Tensor

from tuneful.errors import ModelError
from tuneful.functional.attention import Piece

Ids = Sequence[Sequence[int]]


class Ragged:
    """T tokens: P different prefixes one after the other, then the own tokens of R rows.

    ids, positions: int64 [T]. prefix_of: int64 [R]. prefixes, own: the rows of either part; the same as pieces of the
    list of all tokens, where own tokens read their prefix.
    """

    def __init__(self, prompts: Ids, completions: Ids, device: torch.device, *, predicting: bool = False) -> None:
        """predicting: leave out each completion's last token, which predicts nothing."""
        refuse_empty(prompts)
        number: dict[tuple[int, ...], int] = {}
        prefix_of = [number.setdefault(tuple(prompt[:-1]), len(number)) for prompt in prompts]
        own = [[prompt[-1], *completion] for prompt, completion in zip(prompts, completions, strict=True)]
        if predicting:
            own = [row[:-1] for row in own]
        self.prefixes, self.own = Rows([len(prefix) for prefix in number], device), Rows([len(r) for r in own], device)
        self.prefix_pieces = pieces([len(prefix) for prefix in number])
        self.own_pieces = [
            piece._replace(before=slice(*self.prefix_pieces[prefix][:2]))
            for piece, prefix in zip(pieces([len(r) for r in own], start=len(self.prefixes)), prefix_of, strict=True)
        ]
        self.prefix_of = torch.tensor(prefix_of, device=device)
        self.shared = len(number) < len(own)
        self.ids = torch.tensor([*chain(*number, *own)], dtype=torch.int64, device=device)
        before = self.prefixes.lengths[self.prefix_of]
        self.positions = torch.cat([self.prefixes.place, before[self.own.row] + self.own.place])

    def seen(self) -> Tensor:
        """bool [R, O, L + O]: what each own token reads, its prefix and the own tokens up to itself."""
        num_rows, width = self.own.mask.shape
        prefix = self.prefixes.mask[self.prefix_of][:, None].expand(-1, width, -1)
        own = torch.ones(width, width, dtype=torch.bool, device=prefix.device).tril()
        return torch.cat([prefix, own.expand(num_rows, -1, -1)], dim=-1)

    def of_prefix(self, padded: Tensor) -> Tensor:
        """Numbers of the prefixes [P, ...] for each row [R, ...]."""
        return padded.index_select(0, self.prefix_of) if self.shared else padded


class Rows:
    """N rows of different length, M tokens in all: flat [M, ...], or padded on the right [N, L, ...].

    lengths, ends: int64 [N], tokens of each row, and of it and those before it. mask: bool [N, L], True on tokens.
    row, place: int64 [M], where each token stands in [N, L].
    """

    def __init__(self, lengths: Sequence[int], device: torch.device, *, width: int | None = None) -> None:
        """width: L, at least the longest row; None: the longest row."""
        self.lengths = torch.tensor(lengths, dtype=torch.int64, device=device)
        self.ends = self.lengths.cumsum(0)
        steps = torch.arange(max(lengths) if width is None else width, device=device)
        self.mask = steps < self.lengths[:, None]
        self.row, self.place = self.mask.nonzero(as_tuple=True)
        flat = (self.ends - self.lengths)[:, None] + steps
        self._flat = flat.minimum(self.ends[:, None] - 1).clamp_min(0).flatten()
        self._padded = self.row * len(steps) + self.place

    def __len__(self) -> int:
        return len(self.row)

    def pad(self, flat: Tensor) -> Tensor:
        """[M, ...] -> [N, L, ...]. What stands in the padding is finite, and gets no gradient."""
        moved: Tensor = _Move.apply(flat, self._flat, self._padded, None)  # type: ignore[no-untyped-call]
        return moved.view(*self.mask.shape, *flat.shape[1:])

    def flatten(self, padded: Tensor) -> Tensor:
        """[N, L, ...] -> [M, ...]."""
        return _Move.apply(padded.flatten(0, 1), self._padded, self._flat, self.mask.flatten())  # type: ignore[no-any-return, no-untyped-call]


def pieces(lengths: Sequence[int], *, start: int = 0) -> list[Piece]:
    """Rows of these lengths, one after the other from place `start`."""
    ends = list(accumulate(lengths, initial=start))
    return [Piece(first, end) for first, end in pairwise(ends)]


def refuse_empty(prompts: Ids) -> None:
    """Raises ModelError for a prompt of no tokens, from which nothing can be predicted."""
    if any(len(prompt) == 0 for prompt in prompts):
        raise ModelError("a prompt has no tokens; every prompt needs at least one, for example the start token")


class _Move(torch.autograd.Function):
    """Rows `there` of x. The way back is known, so that gradients are gathered too: scattering uses one core."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, there: Tensor, back: Tensor, keep: Tensor | None) -> Tensor:
        ctx.save_for_backward(back, keep)
        return x.index_select(0, there)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        back, keep = ctx.saved_tensors
        moved = grad.index_select(0, back)
        if keep is not None:
            moved *= keep.view(-1, *[1] * (moved.dim() - 1))
        return moved, None, None, None
