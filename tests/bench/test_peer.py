from __future__ import annotations

import subprocess
from typing import Any

import peer
import pytest

S_FULL = {"bench": "ppo", "size": "S", "shape": "full", "workload": "fixed"}


def test_medians_are_of_each_number() -> None:
    told = [{"speed": 3.0, "memory": 1.0}, {"speed": 1.0, "memory": 9.0}, {"speed": 2.0, "memory": 4.0}]
    assert peer.medians(told) == {"speed": 2.0, "memory": 4.0}
    assert peer.medians(told[:2]) == {"speed": 2.0, "memory": 5.0}


@pytest.mark.parametrize(
    ("throughput", "gemm", "share", "void"),
    [
        (3.79, 220.0, 1.0, False),  # as it was
        (1.895, 110.0, 1.0, False),  # a machine of half the pace
        (2.8425, 220.0, 0.75, False),
        (2.8, 220.0, 0.7388, True),
        (4.7375, 220.0, 1.25, False),
        (3.79, 110.0, 2.0, True),
    ],
)
def test_a_run_is_void_where_the_peer_is_not_what_it_was(
    throughput: float, gemm: float, share: float, void: bool
) -> None:
    assert peer.against_baseline(throughput, gemm, **S_FULL) == {
        "trl_of_baseline": pytest.approx(share, abs=1e-4),
        "void": void,
    }


def test_where_the_peer_was_not_measured_nothing_is_void() -> None:
    told = peer.against_baseline(3.79, 220.0, **(S_FULL | {"workload": "ragged"}))
    assert told == {"trl_of_baseline": None, "void": None}


def test_the_baseline_names_sizes_that_there_are() -> None:
    assert {size for _, size, _, _ in peer.BASELINE} <= set(peer.SIZES)


def test_trunk_weights_by_hand() -> None:
    """S: 4 layers of 4 x 256 x 256 for attention and 3 x 256 x 688 for the rest."""
    assert peer.trunk_params("S") == 4 * (262_144 + 528_384)


def test_pairs_are_cut_to_their_tokens(data_dir: Any, base_model_dir: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from tuneful.data.templates import pair_ids
    from tuneful.models.loading import load_tokenizer

    monkeypatch.setenv("TUNEFUL_DATA", str(data_dir))
    tokenizer = load_tokenizer(base_model_dir)
    pairs = peer.pairs(base_model_dir, 40)
    rows = [pair_ids(c.prompt, side, tokenizer, max_tokens=None) for c in pairs for side in (c.chosen, c.rejected)]
    assert max(len(prompt) for prompt, _ in rows) == 128
    assert max(len(answer) for _, answer in rows) == 64
    assert all(answer[-1] == tokenizer.eos_token_id and tokenizer.eos_token_id not in answer[:-1] for _, answer in rows)
    assert all(c.chosen != c.rejected for c in pairs)
    assert len({c.group_key for c in pairs}) == 40


@pytest.mark.parametrize(("seeded", "seeds"), [(True, ["0", "1"]), (False, ["7", "7"])])
def test_each_round_may_have_a_seed_of_its_own(monkeypatch: pytest.MonkeyPatch, seeded: bool, seeds: list[str]) -> None:
    """The last --seed of a command is the one that counts. The second round begins with the other side."""
    seen: list[tuple[str, str]] = []

    def run(command: list[str], **_: Any) -> Any:
        if "--side" in command:
            last = len(command) - 1 - command[::-1].index("--seed")
            seen.append((command[last + 1], command[-1]))
        return subprocess.CompletedProcess(command, 0, stdout="{}\n", stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    told = peer.take_turns(["bench.py", "--seed", "7"], ["ours", "trl"], 2, seeded=seeded)
    first, second = seeds
    assert seen == [(first, "ours"), (first, "trl"), (second, "trl"), (second, "ours")]
    assert [len(lines) for lines in told.values()] == [2, 2, 2]
