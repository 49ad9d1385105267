"""The models of a file of annotations against their baseline, as a report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tuneful.data.annotations import read_annotations
from tuneful.data.writing import refuse_existing
from tuneful.evaluation.leaderboard import as_table, leaderboard, read_published
from tuneful.evaluation.report import write_json, write_report


def report_standings(
    annotations: Path,
    published: Path | None,
    out: Path,
    *,
    seed: int = 0,
    force: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write `report.json` and `report.html` into `out`; the former's content, with the place of the page.

    published: a CSV of published numbers to stand beside them. on_progress: see `length_controlled`. Raises DataError
    for files that cannot be read, and for a report that is there without `force`.
    """
    refuse_existing(out / "report.json", force=force)
    found = read_annotations(annotations)
    known = {} if published is None else read_published(published)
    baseline, standings = leaderboard(found, seed=seed, on_progress=on_progress)
    report = {"baseline": baseline, "annotator": found[0].annotator, "leaderboard": as_table(standings, known)}
    write_json(out / "report.json", report)
    write_report(out / "report.html", report, title=annotations.name)
    return report | {"page": str(out / "report.html")}
