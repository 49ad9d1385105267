from __future__ import annotations

import argparse
from typing import Any

import peer
import peer_batches
import ppo
import pytest
import torch


def given(**changes: Any) -> argparse.Namespace:
    return argparse.Namespace(**({"size": "S", "shape": "lora", "workload": "ragged", "planted": False} | changes))


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands of rounds that are taken beside the line's own, each of a peer at half its usual 3.98 a second."""
    taken: list[list[str]] = []

    def take_turns(command: list[str], sides: list[str], rounds: int) -> dict[str, list[dict[str, float]]]:
        taken.append([*command[-2:], *sides, str(rounds)])
        return {"trl": [{"samples_per_s": 1.99}], "machine": [{"gemm_gflops": 220.0}]}

    monkeypatch.setattr(peer, "take_turns", take_turns)
    monkeypatch.setattr(peer, "prepare", lambda size, workload: None)
    return taken


def test_a_ragged_line_is_void_where_a_fixed_round_of_the_peer_is_slow(rounds: list[list[str]]) -> None:
    told = ppo.usual(given(), {"samples_per_s": 9.0}, {"gemm_gflops": 220.0})
    assert told == {"baseline_workload": "fixed", "trl_of_baseline": pytest.approx(0.5), "void": True}
    assert rounds == [["--workload", "fixed", "trl", "3"]]


def test_a_fixed_line_tells_it_itself(rounds: list[list[str]]) -> None:
    told = ppo.usual(given(workload="fixed"), {"samples_per_s": 3.98}, {"gemm_gflops": 220.0})
    assert told == {"baseline_workload": "fixed", "trl_of_baseline": pytest.approx(1.0), "void": False}
    assert rounds == []


def test_where_no_baseline_is_no_round_is_taken(rounds: list[list[str]]) -> None:
    told = ppo.usual(given(size="XS"), {"samples_per_s": 9.0}, {"gemm_gflops": 220.0})
    assert told["void"] is None
    assert rounds == []


def test_on_a_gpu_nothing_tells(rounds: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    told = ppo.usual(given(), {"samples_per_s": 40.0}, {"gemm_gflops": 40_000.0})
    assert told["void"] is None
    assert rounds == []


def test_the_peer_steps_once_for_each_minibatch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minibatch of two passes, also at the end of its prompts, where it would step after each."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState

    monkeypatch.setattr(GradientState, "end_of_dataloader", True)
    try:
        accelerator = Accelerator(cpu=True, gradient_accumulation_steps=8)
        ppo.accumulate(accelerator, 2)
        steps = []
        for _ in range(6):
            with accelerator.accumulate(torch.nn.Linear(1, 1)):
                steps.append(accelerator.sync_gradients)
        assert steps == [False, True, False, True, False, True]
        assert accelerator.gradient_accumulation_steps == 2  # by which it divides the losses
    finally:
        GradientState._reset_state()
        AcceleratorState._reset_state(True)


def test_what_the_bench_takes_is_among_what_is_tried() -> None:
    assert peer_batches.TAKEN in peer_batches.TRIED
    assert all(ppo.ROLLOUTS // ppo.MINIBATCHES % batch == 0 for batch, _ in peer_batches.TRIED)


def test_ends_count_for_nothing_where_the_peer_does_not_stop_at_them() -> None:
    """And where they do, or where speed alone is compared, 1, as both sides have it by default."""
    assert ppo.missing_end(given(planted=True, workload="fixed")) == 0.0
    assert ppo.missing_end(given(planted=True)) == ppo.missing_end(given(workload="fixed")) == 1.0
