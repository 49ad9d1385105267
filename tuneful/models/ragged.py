"""Rows of prompt and completion as one flat list of tokens, so that a linear layer sees no padding.

A row's prefix is its prompt without the last token; its own tokens are that one and those of the completion. All own
tokens but the last predict the completion (`predicting=True` leaves that one out); a reward is read at the last. So no
state of a prefix is read, and rows with equal prompts share one, exactly:

    rows ([7, 9, 4], [8, 2]) and ([7, 9, 4], [5])   ->   one prefix [7, 9]   own tokens [4, 8, 2], [4, 5]

A prefix stands before the own tokens that read it, so that a row with a prompt of its own is one piece. Only attention
sees rows, one by one (functional/attention.py) or padded on the right.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

from tuneful.errors import ModelError
from tuneful.functional.attention import Piece

Ids = Sequence[Sequence[int]]


class Ragged:
    """T tokens: each of P different prefixes, and after it the own tokens of its rows; M own tokens in R rows.

    ids, positions: int64 [T]. prefix_of: int64 [R]. prefixes, own: the rows of either part. pieces: all T tokens in
    their order; own_pieces: the own tokens row by row, with their prefix before them.
    """

    def __init__(self, prompts: Ids, completions: Ids, device: torch.device, *, predicting: bool = False) -> None:
        """predicting: leave out each completion's last token, which predicts nothing."""
        refuse_empty(prompts)
        own = [[prompt[-1], *completion] for prompt, completion in zip(prompts, completions, strict=True)]
        if predicting:
            own = [row[:-1] for row in own]
        rows_of: dict[tuple[int, ...], list[int]] = {}
        for row, prompt in enumerate(prompts):
            rows_of.setdefault(tuple(prompt[:-1]), []).append(row)
        ids: list[int] = []
        prefix_of = [0] * len(own)
        prefix_pieces: list[Piece] = []
        self.own_pieces = [Piece(0, 0)] * len(own)
        self.pieces: list[Piece] = []
        for prefix, rows in rows_of.items():
            before = slice(len(ids), len(ids) + len(prefix))
            ids += prefix
            for row in rows:
                prefix_of[row] = len(prefix_pieces)
                self.own_pieces[row] = Piece(len(ids), len(ids) + len(own[row]), before)
                ids += own[row]
            prefix_pieces.append(Piece(before.start, before.stop))
            if len(rows) == 1:
                self.pieces.append(Piece(before.start, len(ids)))
            else:
                self.pieces += [prefix_pieces[-1], *(self.own_pieces[row] for row in rows)]
        self.shared = len(prefix_pieces) < len(own)
        self.prefixes, self.own = (
            Rows([piece.stop - piece.start for piece in part], device) for part in (prefix_pieces, self.own_pieces)
        )
        self.ids = torch.tensor(ids, dtype=torch.int64, device=device)
        self.prefix_of = torch.tensor(prefix_of, device=device)
        starts = [torch.tensor([p.start for p in part], device=device) for part in (prefix_pieces, self.own_pieces)]
        # Where the tokens of all prefixes, then the own tokens row by row, stand in the list; and the other way.
        self._there = torch.cat(
            [start[part.row] + part.place for start, part in zip(starts, (self.prefixes, self.own), strict=True)]
        )
        self._back = torch.empty_like(self._there)
        self._back[self._there] = torch.arange(len(self._there), device=device)
        to_own = self._back - len(self.prefixes)
        # Where the own tokens stand, which of them each token is, and whether it is one: what `_Move` asks for.
        self._own = self._there[len(self.prefixes) :], to_own.clamp_min(0), to_own >= 0
        before_own = self.prefixes.lengths[self.prefix_of][self.own.row]
        self.positions = torch.cat([self.prefixes.place, before_own + self.own.place])[self._back]

    def seen(self) -> Tensor:
        """bool [R, O, L + O]: what each own token reads, its prefix and the own tokens up to itself."""
        num_rows, width = self.own.mask.shape
        prefix = self.prefixes.mask[self.prefix_of][:, None].expand(-1, width, -1)
        own = torch.ones(width, width, dtype=torch.bool, device=prefix.device).tril()
        return torch.cat([prefix, own.expand(num_rows, -1, -1)], dim=-1)

    def of_prefix(self, padded: Tensor) -> Tensor:
        """Numbers of the prefixes [P, ...] for each row [R, ...]."""
        return padded.index_select(0, self.prefix_of) if self.shared else padded

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[T, ...] -> tokens of the prefixes [T - M, ...], one after the other, and own tokens row by row [M, ...]."""
        moved: Tensor = _Move.apply(x, self._there, self._back, None)  # type: ignore[no-untyped-call]
        prefixes, own = torch.split(moved, [len(self.prefixes), len(self.own)])
        return prefixes, own

    def own_of(self, x: Tensor) -> Tensor:
        """The second of `parts` alone."""
        return _Move.apply(x, *self._own)  # type: ignore[no-any-return, no-untyped-call]

    def joined(self, prefixes: Tensor, own: Tensor) -> Tensor:
        """`parts` undone: [T - M, ...] and [M, ...] -> [T, ...]."""
        return _Move.apply(torch.cat([prefixes, own]), self._back, self._there, None)  # type: ignore[no-any-return, no-untyped-call]


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
        self._token_of_place = flat.minimum(self.ends[:, None] - 1).clamp_min(0).flatten()
        self._place_of_token = self.row * len(steps) + self.place

    def __len__(self) -> int:
        return len(self.row)

    def pad(self, flat: Tensor) -> Tensor:
        """[M, ...] -> [N, L, ...]. What stands in the padding is finite, and gets no gradient."""
        moved: Tensor = _Move.apply(flat, self._token_of_place, self._place_of_token, None)  # type: ignore[no-untyped-call]
        return moved.view(*self.mask.shape, *flat.shape[1:])

    def flatten(self, padded: Tensor) -> Tensor:
        """[N, L, ...] -> [M, ...]."""
        return _Move.apply(padded.flatten(0, 1), self._place_of_token, self._token_of_place, self.mask.flatten())  # type: ignore[no-any-return, no-untyped-call]


def pieces(lengths: Sequence[int]) -> list[Piece]:
    """Rows of these lengths, one after the other."""
    ends = list(accumulate(lengths, initial=0))
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
        if not len(grad):  # of no own tokens, where completions are empty
            return grad.new_zeros(len(back), *grad.shape[1:]), None, None, None
        moved = grad.index_select(0, back)
        if keep is not None:
            moved *= keep.view(-1, *[1] * (moved.dim() - 1))
        return moved, None, None, None
