"""Attention of rows of different length, one row after the other: no padding, and nothing kept but what went in.

On a CPU a kernel for batches computes the padding too, and today's are tuned for rows longer than a dialogue; two plain
products and a softmax for each row take half the time on one thread (docs/decisions/0011-own-pass.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

QUERIES_AT_ONCE = 128
"""Of one row: its scores, [H, 128, L], stay small however long it is, and most of what is masked is not computed."""


class Piece(NamedTuple):
    """Tokens `start` to `stop` (left out) of a flat list [T, ...], which read those of `before` and of the piece up to
    themselves."""

    start: int
    stop: int
    before: slice = slice(0, 0)


def ragged_attention(q: Tensor, k: Tensor, v: Tensor, pieces: Sequence[Piece], *, scale: float) -> Tensor:
    """softmax(scale q k^T) v over what each token of the pieces reads: float32 [S, H, h], S = tokens of all pieces.

    q: float32 [S, H, h], piece after piece; k, v: [T, K, h], H a multiple of K. Scores are made again for the backward
    pass.
    """
    return _RaggedAttention.apply(q, k, v, pieces, scale)  # type: ignore[no-any-return, no-untyped-call]


class _RaggedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, pieces: Sequence[Piece], scale: float) -> Tensor:
        assert len(q) == sum(piece.stop - piece.start for piece in pieces), "a query for each token of the pieces"
        ctx.save_for_backward(q, k, v)
        ctx.pieces, ctx.scale = pieces, scale
        out = torch.empty_like(q)
        heads = k.shape[1]
        for queries, keys, mask in _blocks(pieces, q):
            probs = _probs(_by_head(q[queries], heads), _rows(k, keys), mask, scale)
            out[queries] = _by_token(torch.bmm(probs, _rows(v, keys).transpose(0, 1)), q.shape[1])
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v = ctx.saved_tensors
        of_q, of_k, of_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        heads = k.shape[1]
        for queries, keys, mask in _blocks(ctx.pieces, q):
            query, key, out = _by_head(q[queries], heads), _rows(k, keys), _by_head(grad[queries], heads)
            probs = _probs(query, key, mask, ctx.scale)
            _add(of_v, keys, torch.bmm(probs.transpose(1, 2), out))
            of_probs = torch.bmm(out, _rows(v, keys).permute(1, 2, 0))
            of_scores = torch.ops.aten._softmax_backward_data(of_probs, probs, -1, probs.dtype).mul_(ctx.scale)
            of_q[queries] = _by_token(torch.bmm(of_scores, key.transpose(0, 1)), q.shape[1])
            _add(of_k, keys, torch.bmm(of_scores.transpose(1, 2), query))
        return of_q, of_k, of_v, None, None


def _blocks(pieces: Sequence[Piece], like: Tensor) -> Iterator[tuple[slice, tuple[slice, slice], Tensor]]:
    """The queries of each product, the two spans of their keys, and what they don't see."""
    longest = max((piece.stop - piece.start + piece.before.stop - piece.before.start for piece in pieces), default=0)
    side = min(QUERIES_AT_ONCE, longest)
    mask = like.new_zeros(side, longest + side)
    mask[:, longest:] = like.new_full((side, side), float("-inf")).triu_(1)
    place = 0
    for start, stop, earlier in pieces:
        for first in range(start, stop, QUERIES_AT_ONCE):
            last = min(first + QUERIES_AT_ONCE, stop)
            seen, size = earlier.stop - earlier.start + first - start, last - first
            adjacent = earlier.stop == start
            yield (
                slice(place, place + size),
                (slice(0, 0), slice(earlier.start, last)) if adjacent else (earlier, slice(start, last)),
                mask[:size, longest - seen : longest + size],
            )
            place += size


def _rows(x: Tensor, spans: tuple[slice, slice]) -> Tensor:
    """The tokens of both spans [L, K, h]."""
    earlier, own = spans
    return x[own] if earlier.start == earlier.stop else torch.cat([x[earlier], x[own]])


def _add(total: Tensor, spans: tuple[slice, slice], by_head: Tensor) -> None:
    """Add [K, L, h] to the tokens of both spans."""
    earlier, own = spans
    size = earlier.stop - earlier.start
    part = by_head.transpose(0, 1)
    total[own].add_(part[size:])
    if size:
        total[earlier].add_(part[:size])


def _probs(query: Tensor, key: Tensor, mask: Tensor, scale: float) -> Tensor:
    """[K, G o, h], [L, K, h], [o, L] -> [K, G o, L]."""
    groups = query.shape[1] // len(mask)
    if groups > 1:
        mask = mask.repeat(groups, 1)
    scores = torch.baddbmm(mask, query, key.permute(1, 2, 0), alpha=scale)
    return scores.softmax(-1)


def _by_head(x: Tensor, heads: int) -> Tensor:
    """[o, H, h] -> [K, G o, h], the G = H / K query heads that read the same keys one after the other."""
    grouped = x.view(len(x), heads, -1, x.shape[2]).permute(1, 2, 0, 3)
    return grouped.reshape(heads, -1, x.shape[2])


def _by_token(x: Tensor, heads: int) -> Tensor:
    """The way back, [o, H, h]."""
    grouped = x.view(len(x), heads // len(x), -1, x.shape[2]).permute(2, 0, 1, 3)
    return grouped.reshape(-1, heads, x.shape[2])
