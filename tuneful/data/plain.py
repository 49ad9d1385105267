"""Values of tables as JSON would hold them: what other people's libraries hand over, made plain."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from pathlib import PurePath
from typing import Any
from uuid import UUID


def plain(value: Any) -> Any:
    """`value` as text, number, truth value, list or dict; None for what is none of these, such as an image or bytes.

    Times become ISO 8601, time spans seconds, numpy's numbers and arrays Python's. A table fills a missing cell with
    null or NaN where JSON leaves the key out, so such keys are left out, at every depth.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, Mapping):
        fields = {str(key): plain(item) for key, item in value.items()}
        return {key: item for key, item in fields.items() if item is not None}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Decimal):
        return plain(float(value))
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, UUID | PurePath):
        return str(value)
    if hasattr(value, "isoformat"):  # dates, times, and those of pandas
        return value.isoformat()
    if hasattr(value, "tolist"):  # numpy's scalars and arrays
        return plain(value.tolist())
    return None
