from __future__ import annotations

import pytest
from learners import require_agreement


def test_sides_that_agree_pass() -> None:
    require_agreement({"first_loss": 0.6931, "last_loss": 0.61}, {"first_loss": 0.693101, "last_loss": 0.609999})


@pytest.mark.parametrize(
    "theirs", [{"first_loss": 0.69312, "last_loss": 0.61}, {"first_loss": 0.6931, "last_loss": 0.60998}]
)
def test_another_loss_is_another_mathematics(theirs: dict[str, float]) -> None:
    with pytest.raises(SystemExit, match=r"loss is 0\.6.* further apart than 1e-05"):
        require_agreement({"first_loss": 0.6931, "last_loss": 0.61}, theirs)


def test_a_loss_that_is_no_number_agrees_with_nothing() -> None:
    nan = {"first_loss": float("nan"), "last_loss": float("nan")}
    with pytest.raises(SystemExit, match="first_loss is nan"):
        require_agreement(nan, nan)
