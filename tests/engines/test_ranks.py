"""Two processes that share the work have in their hands, at every step, what one process has."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from tests.engines import ranks_program
from tests.engines.launch import ROOT, start_ranks
from tests.engines.ranks_program import LEARNERS, MICROBATCHES
from tuneful.engines import ranks

CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(scope="module")
def one(tiny_model_dir: Path) -> dict[str, Any]:
    """What one process has at the end."""
    return ranks_program.outcome(tiny_model_dir)


@pytest.fixture(scope="module", params=[(), ("shard",)], ids=["whole", "sharded"])
def two(
    request: pytest.FixtureRequest, tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """What each of two has, that hold all weights or a part of the layers."""
    out = tmp_path_factory.mktemp("two")
    processes = start_ranks(ranks_program.__name__, tiny_model_dir, out, *request.param, errors=out / "errors")
    for rank, process in enumerate(processes):
        assert process.wait(timeout=300) == 0, (out / "errors" / str(rank)).read_text()
    return [torch.load(out / f"{rank}.pt", weights_only=False) for rank in (0, 1)]


def test_the_same_tokens_are_sampled(one: dict[str, Any], two: list[dict[str, Any]]) -> None:
    for name in ("rollout", "one prompt"):  # the second leaves one rank without any
        ours = one[name]
        for found in (rank[name] for rank in two):
            assert (found.prompts, found.completions) == (ours.prompts, ours.completions)
            assert (found.texts, found.finish) == (ours.texts, ours.finish)
            assert torch.equal(found.group, ours.group)
            assert torch.equal(found.mask, ours.mask)
            assert_close(found.logprobs, ours.logprobs, **CLOSE)
            assert_close(found.sampled_logprobs, ours.sampled_logprobs, **CLOSE)
    assert len({len(row) for row in one["rollout"].completions}) > 1
    assert_close(two[0]["rollout"].values, one["rollout"].values, **CLOSE)
    assert one["rollout"].values.abs().max() > 0.01


@pytest.mark.parametrize("name", ["scores", "reference", "kl"])
def test_the_same_numbers_are_read(one: dict[str, Any], two: list[dict[str, Any]], name: str) -> None:
    assert one[name].abs().max() > 0.01
    for rank in two:
        assert_close(rank[name], one[name], **CLOSE)


def test_loss_and_gradient_depend_on_neither_microbatches_nor_ranks(
    one: dict[str, Any], two: list[dict[str, Any]]
) -> None:
    gradient, metrics = one["gradients"][MICROBATCHES[0]]
    for found in (one, *two):
        for tokens in MICROBATCHES:
            assert_close(found["gradients"][tokens][0], gradient, **CLOSE)
            assert found["gradients"][tokens][1] == pytest.approx(metrics, rel=1e-5)


def test_a_rank_without_memory_blames_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"), ranks.together():
        raise torch.OutOfMemoryError("CUDA out of memory")
    assert capsys.readouterr().err == ""


def test_a_rank_without_rows_makes_the_same_step(one: dict[str, Any], two: list[dict[str, Any]]) -> None:
    for rank in two:
        assert_close(rank["one row"][0], one["one row"][0], **CLOSE)
        assert rank["one row"][1] == pytest.approx(one["one row"][1])


def test_neither_does_the_gradient_of_all_weights(one: dict[str, Any], two: list[dict[str, Any]]) -> None:
    gradient, metrics = one["of all weights"][MICROBATCHES[0]]
    assert len(gradient) > len(one["gradients"][40][0])
    for found in (one, *two):
        for again, loss in (*found["of all weights"].values(), found["of all weights, again"]):
            assert_close(again, gradient, **CLOSE)
            assert loss == pytest.approx(metrics, rel=1e-5)


@pytest.mark.parametrize("name", LEARNERS)
def test_runs_end_with_equal_weights(one: dict[str, Any], two: list[dict[str, Any]], name: str) -> None:
    ours = one["runs"][name]
    moved = (ours["after"] - ours["before"]).norm()
    assert moved > 0
    for rank in two:
        found = rank["runs"][name]
        assert torch.equal(found["before"], ours["before"])
        assert (found["after"] - ours["after"]).norm() < 1e-5 * moved
        for step, expected in zip(found["metrics"], ours["metrics"], strict=True):
            assert step == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert torch.equal(two[0]["runs"][name]["after"], two[1]["runs"][name]["after"])


def test_a_part_of_the_layers_takes_a_part_of_the_memory(
    one: dict[str, Any], two: list[dict[str, Any]], request: pytest.FixtureRequest
) -> None:
    """A layer has 4 * 32 * 32 + 3 * 32 * 64 + 2 * 32 weights, there are two; 32 * 81 + 32 stay whole. Each is held four
    times: by policy and reference, and in the two moments of Adam."""
    of_layers, rest = 2 * 10_304, 2_624
    whole = 4 * 4 * (of_layers + rest)
    expected = whole if "whole" in request.node.name else 4 * 4 * (of_layers // 2 + rest)
    assert one["held"] == pytest.approx(whole, rel=0.01)
    for rank in two:
        assert rank["held"] == pytest.approx(expected, rel=0.01)


def test_a_reward_is_asked_once_for_each_completion(two: list[dict[str, Any]]) -> None:
    asked = [rank["asked"] for rank in two]
    assert sorted(asked[0] + asked[1]) == [str(k) for k in range(10)]
    assert min(map(len, asked)) >= 4


def test_an_error_of_one_rank_is_raised_on_all(two: list[dict[str, Any]]) -> None:
    assert [rank["error"] for rank in two] == ["RewardError: no answer"] * 2


def test_ranks_that_differ_are_refused(two: list[dict[str, Any]]) -> None:
    assert [rank["different"] for rank in two] == ["CheckError: the numbers are not the same on ranks 0 and 1"] * 2


def test_a_rank_that_is_told_to_end_writes_its_stack() -> None:
    """As torchrun does when another has died. This one waits for a second rank that never comes."""
    program = "from tuneful.engines import ranks\nprint('begun', flush=True)\nwith ranks.process_group(): pass"
    alone = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"}
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | alone,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=1)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGTERM
    assert "in process_group" in said


def test_one_process_is_rank_0_of_1() -> None:
    assert (ranks.rank(), ranks.world_size()) == (0, 1)
    assert ranks.gather(lambda: "it") == ["it"]
    assert ranks.microbatches([3, 5, 4], 8) == [[1], [2, 0]]
