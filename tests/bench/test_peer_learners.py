from __future__ import annotations

from typing import Any

import pytest
from peer_learners import SEARCH, SEARCH_SEED, SIDES, compared, found


def line(side: str, seed: int, rate: float, leash: float, method: str = "ppo", **told: Any) -> dict[str, Any]:
    return {"key": [side, method, seed, rate, leash], **told}


def searched(best: dict[str, tuple[float, float]]) -> list[dict[str, Any]]:
    """A whole search of PPO, in which each side's best on dev prompts is this."""
    rates, leashes = SEARCH["ppo"]
    tried = [(rate, leash) for rate in rates for leash in leashes]
    return [
        line(side, SEARCH_SEED, *one, dev=1.0 if one == best[side] else 0.5, test=99.0)
        for side in SIDES
        for one in tried
    ]


BEST = {"ours": (3e-4, 0.1), "trl": (1e-3, 0.3)}


def run(side: str, seed: int, test: float, seconds: float, *curve: tuple[float, float]) -> dict[str, Any]:
    """With what the search found; curve: seconds and utility."""
    points = [{"seconds": at, "utility": utility} for at, utility in curve]
    return line(side, seed, *BEST[side], test=test, kl=2.0 + seed, seconds=seconds, curve=points)


RUNS = [
    run("ours", 0, 1.0, 50, (10, 0.2), (20, 0.65), (50, 0.6)),
    run("ours", 1, 3.0, 70, (30, 0.6), (70, 0.9)),
    run("trl", 0, 0.0, 100, (100, 0.5)),
    run("trl", 1, 2.0, 100, (100, 0.7)),
]


def test_the_search_finds_the_best_on_dev_prompts_of_its_side() -> None:
    kept = [*searched(BEST), line("ours", SEARCH_SEED, 1e-4, 0.3, "rloo", dev=9.0), line("ours", 0, 1e-4, 0.3, dev=9.0)]
    assert {side: found(side, "ppo", kept) for side in SIDES} == BEST
    with pytest.raises(SystemExit, match="rloo, ours: 1 of 6 runs of the search are there; run --search first"):
        found("ours", "rloo", kept)


def test_both_sides_by_hand() -> None:
    """Means 2 and 1, variances 2 of two runs each: Welch's t has 2 degrees of freedom, 4.302653, and the difference a
    standard error of sqrt(2 / 2 + 2 / 2). The peer ends at .6, which ours reaches after 20 and 30 of its 100 s."""
    told = compared("ppo", [*searched(BEST), *RUNS])
    half = 4.302653 * 2**0.5
    assert (told["ours"], told["trl"], told["difference"]) == (2, 1, 1)
    assert told["interval"] == pytest.approx([1 - half, 1 + half], abs=1e-5)
    assert (told["ours_kl"], told["trl_kl"]) == (2.5, 2.5)
    assert told["seconds"] == pytest.approx(0.6)
    assert told["time_to_reach"] == pytest.approx(0.25)


def test_runs_with_what_an_earlier_search_found_do_not_count() -> None:
    kept = [*searched(BEST), *RUNS]
    rate, leash = BEST["ours"]
    old = [
        RUNS[0] | {"key": ["ours", "ppo", 0, 1e-4, leash], "test": 50.0},
        RUNS[0] | {"key": ["ours", "ppo", 1, rate, 0.3], "test": 50.0},
        RUNS[2] | {"key": ["trl", "ppo", 0, *BEST["ours"]], "test": 50.0},
        RUNS[0] | {"key": ["ours", "rloo", 0, rate, leash], "test": 50.0},
    ]
    assert compared("ppo", [*old, *kept]) == compared("ppo", kept)


def test_an_end_that_one_seed_never_reaches_has_no_time() -> None:
    late = run("ours", 1, 3.0, 70, (30, 0.59), (70, 0.5))
    assert compared("ppo", [*searched(BEST), RUNS[0], late, *RUNS[2:]])["time_to_reach"] is None
