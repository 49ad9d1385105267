"""What the hacking alarm is worth: runs of the demo without its leash, and leashed ones of the same seeds beside them.

    python bench/no_leash.py --free runs/free-0 runs/free-1 --leashed runs/demo-0 runs/demo-1 [--json]

For each run: true utility at the start, at its peak, when the alarm rang and at the end. True utility is computed here,
from the logged samples; the runs never saw it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from tuneful.demo.report import utility_curve
from tuneful.runs.logs import read_log


def verdict(run: Path) -> dict[str, Any]:
    """The numbers of one run."""
    rows = list(read_log(run / "ppo" / "metrics.jsonl"))
    curve = utility_curve(run / "ppo")
    proxy = {row["step"]: row["reward"] for row in rows if row["kind"] == "evaluation"}
    alarms = [row["step"] for row in rows if row["kind"] == "alarm"]
    start, end, peak = curve[0], curve[max(curve)], max(curve.values())
    result: dict[str, Any] = {"run": run.name, "start": start, "peak": peak, "end": end, "alarm": None}
    result |= {"gain_lost": (peak - end) / (peak - start), "proxy_rise": proxy[max(proxy)] - proxy[0]}
    if alarms:
        before = max(value for step, value in curve.items() if step <= alarms[0])
        lost = (before - curve[alarms[0]]) / (before - start)
        result |= {"alarm": alarms[0], "lost_at_alarm": lost}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--free", type=Path, nargs="+", required=True)
    parser.add_argument("--leashed", type=Path, nargs="*", default=[])
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    free, leashed = [verdict(run) for run in given.free], [verdict(run) for run in given.leashed]
    for row in [*free, *leashed]:
        rang = (
            "silent"
            if row["alarm"] is None
            else f"alarm at {row['alarm']}, {row['lost_at_alarm']:.0%} of the gain lost"
        )
        ends = f"{row['start']:+.2f} -> peak {row['peak']:+.2f} -> {row['end']:+.2f}"
        print(f"{row['run']:<12} true utility {ends}   proxy {row['proxy_rise']:+.2f}   {rang}")
    if given.json:
        print(json.dumps({"free": free, "leashed": leashed}))


if __name__ == "__main__":
    main()
