"""Attention row by row against a plain softmax over a mask of all tokens, values and gradients in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tuneful.functional.attention import QUERIES_AT_ONCE, Piece, ragged_attention


def plain(q: Tensor, k: Tensor, v: Tensor, pieces: list[Piece], scale: float) -> Tensor:
    """One softmax over [S, T] for each head, with all that a token must not read masked out."""
    seen = torch.zeros(len(k), len(k), dtype=torch.bool)
    for start, stop, before in pieces:
        for token in range(start, stop):
            seen[token, before] = True
            seen[token, start : token + 1] = True
    read = torch.cat([torch.arange(start, stop) for start, stop, _ in pieces])
    keys, values = (part.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for part in (k, v))
    scores = scale * torch.einsum("thd,shd->hts", q, keys)
    probs = scores.masked_fill(~seen[read], float("-inf")).softmax(-1)
    return torch.einsum("hts,shd->thd", probs, values)


def drawn(tokens: int, heads: int, *, seed: int, width: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tokens, heads, width, generator=generator, dtype=torch.float64).requires_grad_()


LONG = 2 * QUERIES_AT_ONCE + 7


@pytest.mark.parametrize(
    ("pieces", "tokens"),
    [
        ([Piece(0, 5)], 5),
        ([Piece(0, 4), Piece(4, 6), Piece(6, 9, slice(0, 4)), Piece(9, 10, slice(4, 6))], 10),
        ([Piece(0, 4), Piece(4, 7, slice(0, 4)), Piece(7, 8, slice(0, 4))], 8),  # two rows with one prompt
        ([Piece(4, 7, slice(0, 4)), Piece(7, 8, slice(0, 4))], 8),  # whose prompt is read, not asked
        ([Piece(4, 7, slice(0, 4)), Piece(9, 11, slice(7, 9))], 11),  # prompts that stand before their rows
        ([Piece(0, 0), Piece(0, 3, slice(0, 0))], 3),  # a prompt of one token has no prefix
        (
            [Piece(0, LONG), Piece(LONG, 2 * LONG, slice(0, LONG)), Piece(2 * LONG, 3 * LONG, slice(0, LONG))],
            3 * LONG,
        ),  # several products to a row
    ],
)
@pytest.mark.parametrize(("heads", "kv_heads"), [(2, 2), (4, 2), (3, 1)])
def test_values_and_gradients(pieces: list[Piece], tokens: int, heads: int, kv_heads: int) -> None:
    asking = sum(piece.stop - piece.start for piece in pieces)
    inputs = drawn(asking, heads, seed=0), drawn(tokens, kv_heads, seed=2), drawn(tokens, kv_heads, seed=3)
    found, expected = ragged_attention(*inputs, pieces, scale=0.3), plain(*inputs, pieces, 0.3)
    assert_close(found, expected)
    direction = torch.randn(found.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for mine, theirs in zip(
        torch.autograd.grad(found, inputs, direction), torch.autograd.grad(expected, inputs, direction), strict=True
    ):
        assert_close(mine, theirs)


def test_two_tokens_by_hand() -> None:
    """Keys 0 and ln 3: the first token reads itself, the second one quarter of the first and three of itself."""
    q = torch.ones(2, 1, 1)
    k, v = torch.tensor([1.0, 3.0]).log(), torch.tensor([8.0, 4.0])
    out = ragged_attention(q, k.view(2, 1, 1), v.view(2, 1, 1), [Piece(0, 2)], scale=1.0)
    assert_close(out.flatten(), torch.tensor([8.0, 5.0]))
