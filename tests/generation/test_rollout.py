"""Rollouts: picking rows, lengths, and the records rewards see."""

from __future__ import annotations

import torch

from tuneful.generation.rollout import Rollout
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


def test_lengths_and_tokens() -> None:
    assert rollout().lengths.tolist() == [3, 2, 1]
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


def test_the_records_a_reward_sees() -> None:
    assert rollout().as_completions()[1:] == [
        Completion("c", (5, 2), "eos"),
        Completion("d", (6,), "length"),
    ]
