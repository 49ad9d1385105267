from __future__ import annotations

import pytest
from limit import PPOWork, fraction_of_limit, ppo_limit

H200 = {"flops": 989e12, "bytes_per_s": 4.8e12}


def half_billion(**settings: object) -> PPOWork:
    """Qwen2.5-0.5B in bfloat16, 512 rows of 256 + 256 tokens: 24 layers of 2 key-value heads of 64, 12,288 bytes."""
    shared: dict[str, object] = {
        "num_params": 0.494e9,
        "rows": 512,
        "prompt_tokens": 256,
        "completion_tokens": 256,
        "epochs": 1,
        "cache_bytes": 24 * 2 * 64 * 2 * 2,
        "bytes_per_param": 2,
    }
    return PPOWork(**(shared | settings))  # type: ignore[arg-type]


def test_four_models_trained_whole_by_hand() -> None:
    """T = 512 x 512 = 262,144. Prefill 2 N T/2 / F = .131; score 4 x 2 N T / F = 1.048; train 2 x 6 N T / F = 1.571.

    A decoding step reads .988 GB of weights and 512 x 384 x 12,288 = 2.416 GB of cache, .709 ms at 4.8 TB/s, and
    computes 2 N x 512 / F = .511 ms: it waits for memory, 256 times .709 ms = .1815.
    """
    limit = ppo_limit(half_billion(scoring_passes=4, trained_models=2, frozen_base=False), **H200)
    by_hand = {"prefill": 0.131, "decode": 0.182, "score": 1.048, "train": 1.571, "step": 2.931}
    assert limit == pytest.approx(by_hand, abs=6e-4)


def test_one_base_for_all_roles_by_hand() -> None:
    """Reference and reward are 2 passes, and one trunk is trained at 4 N T an epoch: .524 and 4 x .524 = 2.095."""
    limit = ppo_limit(half_billion(scoring_passes=2, trained_models=1, frozen_base=True, epochs=4), **H200)
    assert limit["score"] == pytest.approx(0.524, abs=6e-4)
    assert limit["train"] == pytest.approx(2.095, abs=6e-4)
    assert limit["step"] == pytest.approx(0.131 + 0.182 + 0.524 + 2.095, abs=2e-3)


def test_head_and_last_layer_count_on_completions_alone_by_hand() -> None:
    """N 10, of which 2 close, head 5, 2 prompts x 2 samples of 3 + 4 tokens, F 1: 6 tokens of prompts, each read once,
    16 of completions.

    Prefill 2 x 8 x 6 = 96. Decode 4 steps x 2 x 15 x 4 rows = 480. Score 2 x ((8 x 6 + 10 x 16) x 3 + 5 x 16) = 1,408.
    Train 6 x 2 epochs x ((8 x 6 + 10 x 16) x 2 + 5 x 16) = 5,952. In all 7,936.
    """
    work = PPOWork(
        num_params=10,
        closing_params=2,
        head_params=5,
        rows=4,
        prompt_tokens=3,
        completion_tokens=4,
        samples_per_prompt=2,
        epochs=2,
        scoring_passes=3,
        trained_models=2,
        frozen_base=False,
    )
    expected = {"prefill": 96, "decode": 480, "score": 1408, "train": 5952, "step": 7936}
    assert ppo_limit(work, flops=1, bytes_per_s=1e9) == expected
    assert fraction_of_limit(31744, work, flops=1, bytes_per_s=1e9) == 0.25


def test_a_row_alone_waits_for_the_weights_by_hand() -> None:
    """4 steps that read 15 weights of 4 bytes at 1 byte a second: 240 s, where computing takes 4 x 30 / 1,000."""
    work = PPOWork(
        num_params=10,
        head_params=5,
        rows=1,
        prompt_tokens=3,
        completion_tokens=4,
        epochs=1,
        scoring_passes=2,
        trained_models=1,
        frozen_base=True,
    )
    assert ppo_limit(work, flops=1000, bytes_per_s=1)["decode"] == 240
