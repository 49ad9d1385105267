"""Means of named numbers over the updates of one step."""

from __future__ import annotations

from collections.abc import Mapping


class MetricMean:
    """Collects numbers under names; `mean()` gives each name's average."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def add(self, metrics: Mapping[str, float] | None = None, **more: float) -> None:
        for name, value in {**(metrics or {}), **more}.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value)
            self._counts[name] = self._counts.get(name, 0) + 1

    def mean(self) -> dict[str, float]:
        return {name: total / self._counts[name] for name, total in self._sums.items()}
