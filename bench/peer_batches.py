"""The batch sizes with which TRL's PPO is fastest: rows in a pass of its update, rows that it samples and reads.

    python bench/peer_batches.py --trl trl-1.12 [--size S] [--workload ragged] [--shape lora] [--rounds 3] [--steps 2]

The mathematics stays: 32 completions a step, minibatches of 8 with an optimizer step each. A pass holds a minibatch or
a part of it, whose gradients are added up. The settings take turns, each in a process of its own; a line of JSON for
each, the fastest first, with its speed as a multiple of what ppo.py takes.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import peer
import ppo

TAKEN = (ppo.PEER_BATCH, ppo.PEER_FORWARD)
TRIED = ((8, 32), (8, 16), (8, 8), (4, 32), (2, 32), (4, 8))
"""Each number alone below its largest, and both."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl", type=Path, required=True, help="the folder that holds TRL 1.12.0")
    parser.add_argument("--size", choices=peer.SIZES, default="S")
    parser.add_argument("--workload", choices=["fixed", "ragged"], default="ragged")
    parser.add_argument("--shape", choices=["lora", "full"], default="lora")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2, help="steps that are timed, after one that is not")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        given.peer_batch, given.peer_forward = json.loads(given.side)
        given.planted, given.seed = False, 0
        print(json.dumps(ppo.trl(given)))
        return
    peer.prepare(given.size, given.workload)
    told = peer.take_turns(sys.argv, [json.dumps(sizes) for sizes in TRIED], given.rounds)
    found = [line_of(told, *sizes) for sizes in TRIED]
    for line in sorted(found, key=lambda line: -line["speed"]):
        print(json.dumps(line))


def line_of(told: dict[str, list[dict[str, float]]], batch: int, forward: int) -> dict[str, Any]:
    """The line of a pair of sizes, as a multiple of the sizes that ppo.py takes, round by round."""
    side, taken = json.dumps((batch, forward)), json.dumps(TAKEN)
    return {
        "peer_batch": batch,
        "peer_forward": forward,
        **peer.ratio(told, side, taken, "samples_per_s", "speed"),
        **peer.ratio(told, side, taken, "mib_above_imports", "memory"),
        **peer.medians(told[side]),
    }


if __name__ == "__main__":
    main()
