"""Rollouts: picking rows, joining them, and the records rewards see."""

from __future__ import annotations

from dataclasses import replace

import torch

from tuneful.generation.rollout import Rollout, joined
from tuneful.records import Completion


def rollout() -> Rollout:
    """The example of the class, a third row of one token added."""
    numbers = torch.arange(9.0).reshape(3, 3)
    return Rollout(
        prompts=[[1], [1, 4], [1, 5]],
        completions=[[7, 9, 2], [5, 2], [6]],
        texts=["a b", "c", "d"],
        group=torch.tensor([0, 1, 2]),
        finish=["eos", "eos", "length"],
        version=torch.tensor([3, 3, 4]),
        temperature=0.7,
        logprobs=-numbers,
        sampled_logprobs=-numbers - 1,
        mask=torch.tensor([[True, True, True], [True, True, False], [True, False, False]]),
        values=numbers + 2,
        allowed=[[[7], [9], [2]], [[5], [2]], [[6, 8]]],
    )


def test_rows_and_tokens() -> None:
    assert rollout().num_tokens == 6
    assert len(rollout()) == 3


def test_rows_keep_everything_aligned() -> None:
    picked = rollout().rows([2, 0])
    assert picked.completions == [[6], [7, 9, 2]]
    assert picked.prompts == [[1, 5], [1]]
    assert picked.texts == ["d", "a b"]
    assert picked.finish == ["length", "eos"]
    assert picked.group.tolist() == [2, 0]
    assert picked.version.tolist() == [4, 3]
    assert picked.temperature == 0.7
    assert picked.logprobs[:, 0].tolist() == [-6, 0]
    assert picked.sampled_logprobs[:, 0].tolist() == [-7, -1]
    assert picked.mask.sum(-1).tolist() == [1, 3]
    assert picked.values is not None
    assert picked.values[:, 2].tolist() == [10, 4]
    assert picked.reference_logprobs is None
    assert picked.scores is None
    assert picked.allowed == [[[6, 8]], [[7], [9], [2]]]


def test_a_part_whose_hook_forbade_nothing_is_joined_to_one_whose_hook_did() -> None:
    """As on two ranks: rows 1 and 2 were drawn apart from row 0."""
    one, other = rollout().rows([0]), rollout().rows([1, 2])
    free = replace(one, allowed=None)
    assert joined([other, free]).allowed == [[[], [], []], [[5], [2]], [[6, 8]]]
    assert joined([replace(other, allowed=None), free]).allowed is None


def test_the_records_a_reward_sees() -> None:
    assert rollout().as_completions()[1:] == [
        Completion("c", (5, 2), "eos"),
        Completion("d", (6,), "length"),
    ]
