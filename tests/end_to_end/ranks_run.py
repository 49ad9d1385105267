"""`small_run` by several ranks, and the step after one of its checkpoints; as a program, with torchrun's environment:

MODEL TRAINED OUT                 the run
MODEL TRAINED CHECKPOINT TO       what `next_step` returns, into TO by rank 0

TRAINED as for `small_run.roles_of`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from tests.end_to_end.small_run import CONFIG, PROMPTS, Trained, roles_of, train, variety
from tuneful.algorithms.on_policy import Collector
from tuneful.algorithms.ppo import PPO
from tuneful.engines import ranks, sharding
from tuneful.engines.local import LocalEngine
from tuneful.generation.rollout import Rollout
from tuneful.models.loading import load_tokenizer


class StandingEngine(LocalEngine):
    """Keeps the gradient of each step instead of following it."""

    def step(self, max_norm: float) -> float:
        ranks.add_gradients(w for w in self.parameters() if not sharding.is_part(w))
        gradients = [sharding.gathered(w.grad) for w in self.parameters() if w.grad is not None]
        self.gradients: list[Tensor] = [*getattr(self, "gradients", []), torch.cat([g.flatten() for g in gradients])]
        for weight in self.parameters():
            weight.grad = None
        return float(self.gradients[-1].norm())


class Watched(Collector):
    """Keeps what was sampled."""

    sampled: Rollout

    def rollout(self, *arguments: Any, **more: Any) -> Rollout:
        self.sampled = super().rollout(*arguments, **more)
        return self.sampled


def next_step(model: Path, checkpoint: Path, trained: Trained) -> dict[str, Any]:
    """What a run that goes on from `checkpoint` has loaded, and what it samples and finds in its next step."""
    roles = roles_of(model, trained)
    engine = StandingEngine(roles, load_tokenizer(model), optimization=CONFIG.optimization, total_steps=CONFIG.updates)
    learner = PPO(engine, PROMPTS, variety, CONFIG)
    learner.collector = collector = Watched(engine, PROMPTS, variety, CONFIG, with_values=True)
    engine.load(checkpoint)
    learner.restore(json.loads((checkpoint / "learner.json").read_text()))
    loaded = {name: sharding.gathered(weight).clone() for name, weight in roles.weights().items()}
    moments = {
        name: {moment: sharding.gathered(number) for moment, number in engine._optimizer.state[weight].items()}
        for name, weight in roles.weights().items()
    }
    metrics = learner.step()
    return {
        "weights": loaded,
        "optimizer": moments,
        "completions": collector.sampled.completions,
        "gradients": engine.gradients,
        "metrics": metrics,
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    with ranks.process_group():
        model, path, *to = map(Path, [sys.argv[1], *sys.argv[3:]])
        trained = cast(Trained, sys.argv[2])
        if not to:
            train(model, path, trained)
        else:
            found = next_step(model, path, trained)
            if ranks.rank() == 0:
                torch.save(found, to[0])
