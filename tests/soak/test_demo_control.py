"""The control of the demo: labelers who answer at random must not raise true utility, or the truth leaked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tuneful.data.jsonl import read_rows
from tuneful.demo.labelers import simulate
from tuneful.demo.report import MEASURES
from tuneful.demo.run import demo_world
from tuneful.evaluation.intervals import hierarchical_difference
from tuneful.pipeline.context import Labeling
from tuneful.pipeline.recipe import load_recipe, shipped_recipe
from tuneful.pipeline.run import run_recipe
from tuneful.records import Prompt

pytestmark = pytest.mark.soak


def test_random_labelers_teach_nothing(tmp_path: Path) -> None:
    def random_labels(items, raters_per_item, seed):  # type: ignore[no-untyped-def]
        population = 10 * ("random",)
        found = simulate(items, labelers_per_item=raters_per_item, seed=seed, population=population)
        return Labeling(found.judgments)

    world = replace(demo_world(), raters={"labelers": random_labels})
    differences = []
    for seed in range(3):
        out = tmp_path / str(seed)
        run_recipe(load_recipe(shipped_recipe("demo"), seed=seed), out, worlds={"demo": world})
        rows = [row.fields for row in read_rows(out / "evaluate" / "answers.jsonl")]
        utility = MEASURES["true_utility"]
        change = []
        for row in rows:
            prompt = Prompt.from_json(row["prompt"])
            sides = [np.mean([utility(prompt, text) for text in row[side]]) for side in ("after", "before")]
            change.append(float(sides[0] - sides[1]))
        differences.append(change)
    seen = hierarchical_difference(differences)
    assert seen.low <= 0, seen
