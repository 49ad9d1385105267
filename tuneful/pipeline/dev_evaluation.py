"""What is measured on dev prompts while a policy trains: all that stop rules, the alarm and a curious person see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tuneful.algorithms.loop import Evaluation
from tuneful.algorithms.on_policy import OnPolicyConfig
from tuneful.engines.local import LocalEngine
from tuneful.evaluation.intervals import bootstrap_mean
from tuneful.evaluation.text_measures import eos_share, hacking_signals
from tuneful.generation.sampling import fold
from tuneful.records import Prompt
from tuneful.rewards.composite import Composite
from tuneful.rewards.reward import Reward
from tuneful.rollouts.collect import score, shared_scores


class DevEvaluation:
    """Evaluates the policy on dev prompts: what stop rules and the alarm see, and what a person can read.

    The first call is the reference that later texts are compared with; on resume it is sampled again, bit for bit.
    """

    def __init__(
        self,
        engine: LocalEngine,
        prompts: Sequence[Prompt],
        reward: Reward,
        second: Reward | None,
        config: OnPolicyConfig,
        *,
        num_samples: int,
        phrase_z: float,
    ) -> None:
        self.engine = engine
        self.prompts = prompts
        self.reward = reward
        self.second = second
        self.config = config
        self.sampling = replace(config.sampling, num_samples=num_samples)
        self.phrase_z = phrase_z
        self._reference_texts: list[str] | None = None

    def __call__(self, step: int) -> Evaluation:
        rollout = self.engine.sample(self.prompts, self.sampling, seed=fold(self.config.seed, "dev", step))
        kl, _ = self.engine.kl(rollout)
        scores = score(rollout, self.prompts, self.reward, self.config.missing_eos_penalty)
        measures = {
            "reward": float(scores.mean()),
            "kl": float(kl.mean()),
            "eos_share": eos_share(rollout.finish),
            **hacking_signals(rollout.texts, self.reference_texts(), min_z=self.phrase_z),
        }
        if isinstance(self.reward, Composite):
            asked = [self.prompts[g] for g in rollout.group.tolist()]
            completions = rollout.as_completions()
            parts = {part.name: shared_scores(part.reward, asked, completions) for part in self.reward.parts}
            measures |= {f"reward_{name}": float(found.mean()) for name, found in parts.items()}
        if self.second is not None:
            watched = score(rollout, self.prompts, self.second, 0.0)
            seen = bootstrap_mean(watched.cpu().numpy(), rollout.group.cpu().numpy())
            measures |= {"second_reward": seen.mean, "second_reward_low": seen.low, "second_reward_high": seen.high}
        rows = zip(rollout.group.tolist(), rollout.texts, scores.tolist(), kl.tolist(), strict=True)
        samples = [{"prompt": self.prompts[g].text, "completion": text, "score": s, "kl": k} for g, text, s, k in rows]
        return Evaluation(measures, samples)

    def reference_texts(self) -> list[str]:
        """What the reference answers to the dev prompts."""
        if self._reference_texts is None:
            reference = self.engine.as_reference()
            seed = fold(self.config.seed, "dev", 0)
            self._reference_texts = reference.sample(self.prompts, self.sampling, seed=seed).texts
        return self._reference_texts
