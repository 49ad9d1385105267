"""Models against one baseline, from a judge's annotations: win rates, raw and length-controlled."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tuneful.data.annotations import Annotation
from tuneful.errors import DataError
from tuneful.evaluation.intervals import Measured, MeasuredJSON, bootstrap_mean
from tuneful.evaluation.length_control import length_controlled

_PUBLISHED = {"win_rate": "win_rate", "length_controlled_win_rate": "length_controlled_winrate"}
"""The column of AlpacaEval's CSV that holds each of our numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One model against the baseline."""

    model: str
    win_rate: MeasuredJSON
    """Share of instructions where its answer is better, ties one half."""
    standard_error: float
    """Of the win rate: standard deviation over the root of n, as AlpacaEval publishes it."""
    length_controlled_win_rate: MeasuredJSON
    length_coef: float
    """How much the judge's log-odds rise with its length, see length_control."""
    mean_length: float
    """Characters of its answers."""


def leaderboard(
    annotations: Sequence[Annotation], *, seed: int = 0, on_progress: Callable[[int, int], None] | None = None
) -> tuple[str, list[Standing]]:
    """The baseline, which gave the first answers, and all models that gave the second ones, best win rate first.

    Raises DataError for annotations of several baselines or several annotators, whose win rates mean different things.
    """
    baseline = _one("baseline", [a.generators[0] for a in annotations])
    _one("annotator", [a.annotator for a in annotations])
    models, model = np.unique([a.generators[1] for a in annotations], return_inverse=True)
    _, instruction = np.unique([a.prompt.id for a in annotations], return_inverse=True)
    wins = np.array([a.second_wins for a in annotations])
    lengths = np.array([[len(text) for text in a.outputs] for a in annotations], dtype=np.float64)
    controlled = length_controlled(
        model, instruction, wins, lengths[:, 1] - lengths[:, 0], seed=seed, on_progress=on_progress
    )
    standings = [
        Standing(
            model=str(name),
            win_rate=bootstrap_mean(wins[model == m], instruction[model == m], seed=seed).as_json(),
            standard_error=float(wins[model == m].std(ddof=1) / np.sqrt((model == m).sum())),
            length_controlled_win_rate=Measured(
                mean=float(controlled.win_rates[m]),
                low=float(controlled.low[m]),
                high=float(controlled.high[m]),
                n=len(np.unique(instruction[model == m])),
            ).as_json(),
            length_coef=float(controlled.length_coefs[m]),
            mean_length=float(lengths[model == m, 1].mean()),
        )
        for m, name in enumerate(models)
    ]
    return baseline, sorted(standings, key=lambda s: -s.win_rate["mean"])


def read_published(path: Path) -> dict[str, dict[str, float]]:
    """Published standings by model: "win_rate" and "length_controlled_win_rate" in percent, from AlpacaEval's CSV.

    A model's name in annotations is the folder of its answers, which the column `samples` links to. Raises DataError
    for a file without these columns.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}; give a leaderboard CSV") from None
    for column in ("samples", *_PUBLISHED.values()):
        if not rows or column not in rows[0]:
            raise DataError(f'{path}: has no column "{column}"; give a leaderboard as AlpacaEval publishes it')
    return {
        row["samples"].split("/results/")[-1].split("/")[0]: {
            name: _number(path, row, column) for name, column in _PUBLISHED.items() if row[column]
        }
        for row in rows
        if row["samples"]
    }


def as_table(standings: Sequence[Standing], published: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Rows in percent, with the published numbers and the differences to them where a model has some."""
    rows = []
    for standing in standings:
        own = {
            "win_rate": 100 * standing.win_rate["mean"],
            "length_controlled_win_rate": 100 * standing.length_controlled_win_rate["mean"],
        }
        known = published.get(standing.model, {})
        rows.append(
            {
                "model": standing.model,
                **own,
                "interval": [100 * end for end in standing.win_rate["interval"]],
                "standard_error": 100 * standing.standard_error,
                "length_controlled_interval": [100 * end for end in standing.length_controlled_win_rate["interval"]],
                "n": standing.win_rate["n"],
                "mean_length": standing.mean_length,
                "published": dict(known),
                "difference": {name: own[name] - value for name, value in known.items()},
            }
        )
    return rows


def _one(what: str, names: Sequence[str]) -> str:
    found = sorted(set(names))
    if len(found) != 1:
        raise DataError(f"annotations of {len(found)} {what}s ({', '.join(found[:3])}); give a file of one {what}")
    return found[0]


def _number(path: Path, row: Mapping[str, str], column: str) -> float:
    try:
        return float(row[column])
    except ValueError:
        raise DataError(
            f'{path}: {column} of "{row.get("name")}" is {row[column]!r}, which is no number; '
            "give it in percent or leave it empty"
        ) from None
