"""Values of other people's libraries become what JSON can say, each worked out by hand."""

from __future__ import annotations

import json
import math
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneful.data.plain import plain


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (datetime(2024, 1, 2, 3, 4), "2024-01-02T03:04:00"),  # noqa: DTZ001 tables hold such
        (date(2024, 1, 2), "2024-01-02"),
        (timedelta(minutes=2), 120.0),
        (Decimal("1.50"), 1.5),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Path("a") / "b", "a/b"),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.array(["a", None], dtype=object), ["a", None]),
        (float("nan"), None),
        (np.float64("nan"), None),
        (b"\xff", None),
        (object(), None),
        ((1, "a"), [1, "a"]),
        ({"a": None, "b": {"c": np.nan, "d": [None]}, 3: 4}, {"b": {"d": [None]}, "3": 4}),
    ],
)
def test_plain(value: Any, said: Any) -> None:
    found = plain(value)
    assert found == said
    assert type(found) is type(said)


def test_what_is_too_large_is_not_hidden() -> None:
    """Readers refuse it with its row; as null it would pass for a key that is not there."""
    assert plain(math.inf) == math.inf


leaves = st.text(max_size=3) | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
trees = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner), max_leaves=9)


@given(trees)
def test_json_stays_as_it_is(value: Any) -> None:
    assert plain(value) == value
    assert json.loads(json.dumps(plain(value))) == value
