"""Heads that read action values off a language model's hidden states, for learners that choose tokens by value."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class QHeads(nn.Module):
    """Two action values of every token, [.., V], and a state value; and copies of the first that follow them slowly.

    Each is a layer of `2 width` rectified units under a linear one that starts at 0, so every value is 0 at first. Two
    action values are learned and the smaller is believed, since a maximum over many tokens finds every overestimate
    (van Hasselt 2010; Fujimoto et al. 2018, arXiv 1802.09477).
    """

    def __init__(self, width: int, vocabulary: int, *, seed: int = 0) -> None:
        """width: of the hidden states, d; vocabulary: V."""
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.q = nn.ModuleList(_head(width, vocabulary) for _ in range(2))
            self.v = _head(width, 1)
        self.target = copy.deepcopy(self.q).requires_grad_(False)

    def both(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """The two values of these actions, float32 [M] each; states: float [M, d], actions: int64 [M]."""
        first, second = (_of(head, states, actions[:, None]).squeeze(-1) for head in self.q)
        return first, second

    def least(self, states: Tensor, actions: Tensor, *, target: bool = False) -> Tensor:
        """The smaller value of these actions, float32 [M, K]; states: float [M, d], actions: int64 [M, K].

        target: by the copies that follow.
        """
        first, second = (_of(head, states, actions) for head in (self.target if target else self.q))
        return torch.minimum(first, second)

    def value(self, states: Tensor) -> Tensor:
        """State values, float32 [M]; states: float [M, d]."""
        values: Tensor = self.v(states.float()).squeeze(-1)
        return values

    @torch.no_grad()
    def follow(self, share: float) -> None:
        """Move the copies by `share` of the way to the heads; 1: all of it."""
        for copied, weight in zip(self.target.parameters(), self.q.parameters(), strict=True):
            copied.lerp_(weight, share)


def _head(width: int, size: int) -> nn.Sequential:
    last = nn.Linear(2 * width, size)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), last)


def _of(head: nn.Module, states: Tensor, actions: Tensor) -> Tensor:
    """[M, K] of the head's V outputs, the others of which are not made."""
    hidden = head[1](head[0](states.float()))  # type: ignore[index]
    last: nn.Linear = head[2]  # type: ignore[index]
    rows: Tensor = torch.einsum("mh,mkh->mk", hidden, last.weight[actions]) + last.bias[actions]
    return rows
