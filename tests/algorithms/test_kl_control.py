import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneful.algorithms.kl_control import AdaptiveKL, FixedKL, KLController
from tuneful.errors import ConfigError


def test_adaptive_coefficient_by_hand() -> None:
    # KL 9 at target 6: e = clip(.5) = .2; .2 * (1 + .2 * 256 / 10000) = .201024
    above = AdaptiveKL(coef=0.2, target=6, horizon=10_000)
    above.update(9.0, 256)
    assert above.coef == pytest.approx(0.201024, abs=1e-9)
    # KL 0: e = clip(-1) = -.2
    below = AdaptiveKL(coef=0.2, target=6, horizon=10_000)
    below.update(0.0, 256)
    assert below.coef == pytest.approx(0.198976, abs=1e-9)
    # KL 6.6: e = .1, within the clip
    near = AdaptiveKL(coef=0.2, target=6, horizon=10_000)
    near.update(6.6, 256)
    assert near.coef == pytest.approx(0.2 * 1.00256, abs=1e-9)


def test_at_the_target_nothing_moves() -> None:
    controller = AdaptiveKL(coef=0.2, target=6, horizon=10_000)
    controller.update(6.0, 512)
    assert controller.coef == 0.2


@given(st.lists(st.floats(-50, 500), max_size=50), st.integers(1, 512))
def test_the_coefficient_stays_above_0(measured: list[float], num_completions: int) -> None:
    controller = AdaptiveKL(coef=0.2, target=6, horizon=10_000)
    for kl in measured:
        before = controller.coef
        controller.update(kl, num_completions)
        assert controller.coef > 0
        assert (controller.coef >= before) == (kl >= 6) or controller.coef == before


def test_a_fixed_coefficient_stays() -> None:
    controller = FixedKL(0.3)
    controller.update(100.0, 512)
    assert controller.coef == 0.3


@pytest.mark.parametrize("make", [lambda: FixedKL(0.3), lambda: AdaptiveKL(coef=0.3, target=6, horizon=1000)])
def test_save_and_restore_equals_never_stopping(make: type[FixedKL]) -> None:
    undisturbed: KLController = make()
    stopped: KLController = make()
    for kl in (9.0, 2.0):
        undisturbed.update(kl, 64)
        stopped.update(kl, 64)
    saved = json.dumps(stopped.state())
    resumed: KLController = make()
    resumed.restore(json.loads(saved))
    undisturbed.update(7.5, 64)
    resumed.update(7.5, 64)
    assert resumed.coef == undisturbed.coef


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"coef": 0.0, "target": 6, "horizon": 1e4}, "kl_coef"),
        ({"coef": 0.2, "target": 0, "horizon": 1e4}, "kl_target"),
        ({"coef": 0.2, "target": float("nan"), "horizon": 1e4}, "kl_target"),
        ({"coef": 0.2, "target": 6, "horizon": -1}, "kl_horizon"),
    ],
)
def test_a_controller_that_cannot_steer_is_refused(settings: dict[str, float], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        AdaptiveKL(**settings)


@pytest.mark.parametrize("coef", [-0.1, float("inf"), float("nan")])
def test_a_penalty_that_is_none_is_refused(coef: float) -> None:
    with pytest.raises(ConfigError, match="kl_coef"):
        FixedKL(coef)


def test_a_horizon_counted_in_steps_is_refused_before_the_penalty_turns_into_a_bonus() -> None:
    # 1 - .2 * 64 / 10 would be -.28
    with pytest.raises(ConfigError, match="kl_horizon counts completions"):
        AdaptiveKL(coef=0.2, target=6, horizon=10).update(0.0, 64)
