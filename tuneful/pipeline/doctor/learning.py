"""Whether copies of a model learn a few examples by heart, which are thrown away afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from tuneful.algorithms.deep_checks import check_policy_learning, check_reward_learning
from tuneful.algorithms.loop import Progress
from tuneful.pipeline.doctor.finding import Finding, judged
from tuneful.pipeline.doctor.offered import comparisons_of, demonstrations_of


def look_at_learning(
    about: str, path: str, role: Literal["policy", "reward"], data: Path | None, *, progress: Progress | None = None
) -> Iterator[Finding]:
    """A copy of the model as policy learns demonstrations; as the reward model that it is or could become, comparisons.

    data: where they come from as far as it has some; made-up ones fill the gap.
    """
    if role == "policy":
        found = check_policy_learning(path, demonstrations_of(data), progress=progress)
    else:
        found = check_reward_learning(path, comparisons_of(data), progress=progress)
    yield from (judged(about, finding) for finding in found)
