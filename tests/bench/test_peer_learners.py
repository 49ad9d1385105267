from __future__ import annotations

from typing import Any

import peer_learners
import pytest
from peer_learners import SEARCH, SEARCH_SEED, SIDES, compared, due, found


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


def run(side: str, seed: int, test: float, seconds: float, *curve: tuple[float, float, float]) -> dict[str, Any]:
    """With what the search found; curve: seconds, KL and utility."""
    points = [{"seconds": at, "kl": kl, "utility": utility} for at, kl, utility in [(0.0, 0.0, -3.0), *curve]]
    return line(side, seed, *BEST[side], test=test, kl=2.0 + seed, seconds=seconds, curve=points)


RUNS = [
    run("ours", 0, 1.0, 50, (20, 0.4, 0.2), (50, 1.2, 0.6)),
    run("ours", 1, 3.0, 70, (30, 0.3, 0.6), (70, 1.6, 0.9)),
    run("trl", 0, 0.0, 100, (50, 0.5, 0.1), (100, 1.1, 0.5)),
    run("trl", 1, 2.0, 100, (50, 0.4, 0.1), (100, 1.0, 0.7)),
]


def test_the_search_finds_the_best_on_dev_prompts_of_its_side() -> None:
    kept = [*searched(BEST), line("ours", SEARCH_SEED, 1e-4, 0.3, "rloo", dev=9.0), line("ours", 0, 1e-4, 0.3, dev=9.0)]
    assert {side: found(side, "ppo", kept) for side in SIDES} == BEST
    with pytest.raises(SystemExit, match="rloo, ours: 1 of 6 runs of the search are there; run --search first"):
        found("ours", "rloo", kept)


def test_both_sides_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Means 2 and 1, variances 2 of two runs each: Welch's t has 2 degrees of freedom, 4.302653, and the difference a
    standard error of sqrt(2 / 2 + 2 / 2). After 60 s, ours' own, ours are at .6 and .6 + .3 * 30 / 40, the peer's at
    .1 + .4 * 10 / 50 and .1 + .6 * 10 / 50. Within half a nat ours are an eighth of the way from .2 to .6 and two
    thirteenths from .6 to .9, the peer at .1 and a sixth from there to .7; within one six eighths, seven thirteenths,
    five sixths to .5 and at .7; no farther did all four go. The peer ends at .6 on the mean. The rest of ours is -.73
    and -.5 at first, .4 and .75 after 20 and 30 s, less by .025 and within any interval, and there after 50 and 70."""
    monkeypatch.setattr(peer_learners, "LAST", 1)
    told = compared("ppo", [*searched(BEST), *RUNS])
    half = 4.302653 * 2**0.5
    assert (told["ours"], told["trl"], told["difference"]["mean"]) == (2, 1, 1)
    assert told["difference"]["interval"] == pytest.approx([1 - half, 1 + half], abs=1e-5)
    assert told["at_equal_seconds"]["mean"] == pytest.approx((0.6 + 0.825) / 2 - (0.18 + 0.22) / 2)
    frontier = {nats: of["mean"] for nats, of in told["frontier"].items()}
    assert frontier == pytest.approx({0.5: 0.298077, 1.0: 0.064103}, abs=1e-6)
    assert (told["ours_kl"], told["trl_kl"]) == (2.5, 2.5)
    assert told["seconds"] == pytest.approx(0.6)
    assert (told["time_to_come_near"], told["time_to_reach"]) == pytest.approx((0.25, 0.6))


def test_the_end_is_a_mean_of_several_points() -> None:
    """Of all three here, -.8 and -.733: the rest of ours is above that at once."""
    assert compared("ppo", [*searched(BEST), *RUNS])["time_to_reach"] == 0


def test_policies_are_looked_at_often_at_first() -> None:
    assert [step for step in range(1, 26) if due(step, 25)] == [1, 2, 3, 4, 6, 8, 10, 20, 25]


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


def test_an_end_that_is_never_reached_has_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_learners, "LAST", 1)
    late = run("ours", 1, 3.0, 70, (30, 0.3, 0.59), (70, 1.6, 0.5))
    assert compared("ppo", [*searched(BEST), RUNS[0], late, *RUNS[2:]])["time_to_reach"] is None
