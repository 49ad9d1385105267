"""What every stage says when it ends: facts for its `run.json`, and a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuneful.engines import ranks
from tuneful.evaluation.report import MAX_SAMPLES, write_json, write_report
from tuneful.runs.directory import RunDirectory
from tuneful.runs.logs import newest_rows

Facts = dict[str, Any]
"""What a stage has to say in its `run.json`, besides what every stage says."""


def write_stage_report(record: RunDirectory, report: Mapping[str, Any]) -> None:
    """`report.json`, and `report.html` with the metrics and newest samples of the stage, by rank 0."""
    if ranks.rank() > 0:
        return
    write_json(record.path / "report.json", report)
    rows = list(record.metrics.rows())
    samples = report.get("samples") or newest_rows(record.samples.path, MAX_SAMPLES)
    write_report(record.path / "report.html", report, metrics=rows, samples=samples, title=record.name)
