"""One answer of a policy in training, token by token: what its learner reads there, and what its step does to it.

The newest checkpoint before the last step is loaded, the prompts of the next step are answered, and the learner learns
from them, all in memory and all here: the run stays as it is, and so does a server that it samples from. After the last
step the learning rate is 0, and nothing would move.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tuneful.algorithms.grpo import GRPOConfig
from tuneful.algorithms.on_policy import OnPolicyConfig, old_logprobs
from tuneful.algorithms.ppo import PPOConfig
from tuneful.algorithms.reinforce import WholeCompletionConfig
from tuneful.errors import ConfigError, RunError, did_you_mean
from tuneful.generation.rollout import Rollout
from tuneful.models.forward import policy_kl, policy_outputs
from tuneful.pipeline import learner_inputs
from tuneful.pipeline.assembly import present
from tuneful.pipeline.context import Context, Display, Silent, World
from tuneful.pipeline.on_policy import Assembled, assemble
from tuneful.pipeline.recipe import recorded_recipe
from tuneful.pipeline.run import changed_since
from tuneful.runs.directory import checkpoints
from tuneful.runs.lineage import StageRecord, read_stage


@dataclass(frozen=True, slots=True)
class TracedToken:
    """A token as it was drawn and as it was learned from. Logarithms are natural.

    probability, reference: that the policy and the reference gave it. kl, entropy: of the policy from the reference,
    and of the policy, before it, in nats over the whole vocabulary. reward: the leash's share in it, where the learner
    has that in the reward, and the score in the last. value: what was expected from here on. advantage: what the loss
    weighs the token by. ratio: of its probability after the update to that before; of REINFORCE and RLOO that of the
    whole completion. clipped: whether the ratio has left the learner's bounds on the side that the advantage pushes to,
    so that a further pass would leave it alone. None: what the learner does not know.
    """

    token: str
    probability: float
    reference: float
    kl: float
    entropy: float
    reward: float
    value: float | None
    advantage: float
    ratio: float
    clipped: bool | None


@dataclass(frozen=True, slots=True)
class Trace:
    """One answer. step: the optimisation step it belongs to; sample: its number among the answers of that step."""

    stage: str
    algorithm: str
    step: int
    sample: int
    num_samples: int
    prompt: str
    completion: str
    finish: str
    score: float
    kl_coef: float
    tokens: list[TracedToken]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def trace(
    run: Path,
    *,
    stage: str | None = None,
    sample: int = 0,
    worlds: Mapping[str, World] | None = None,
    display: Display | None = None,
) -> Trace:
    """Trace one answer of a run's on-policy stage; run: the run, or the stage's own folder.

    Raises ConfigError for a run without such a stage, or with several and none named, for a sample beyond those of a
    step, and for DQN, which knows no advantages; RunError where there is no checkpoint before the last step, or where
    what the stage read has changed.
    """
    whole, record = _stage_of(run, stage)
    recipe = recorded_recipe(whole.manifest["recipe"], str(whole.folder / "run.json"))
    own = next(one for one in recipe.stages if one.name == record.name)
    found = checkpoints(record.folder)
    if not found:
        raise RunError(f"{record.folder}: holds no checkpoint; run it with save_every above 0")
    context = Context.of(recipe, whole.folder, worlds or {}, display or Silent())
    changed = changed_since(record.manifest, record.folder, context.origins(own.inputs))
    if changed is not None:
        raise RunError(f"{changed}; restore it")
    before_the_last = [one for one in found if one[0] < own.config.num_steps]
    if not before_the_last:
        raise RunError(
            f"{record.folder}: its one checkpoint is of the last step, after which nothing is learned; run it with "
            "save_every below num_steps"
        )
    step, folder = before_the_last[-1]
    inputs = replace(own.inputs, sampler=None)
    made = assemble(context, own.name, record.folder / "published", inputs, own.config)
    made.engine.load(folder)
    made.learner.restore(json.loads((folder / "learner.json").read_text(encoding="utf-8")))
    rollout = made.learner.draw()
    if not 0 <= sample < len(rollout):
        last = len(rollout) - 1
        raise ConfigError(f"--sample {sample}: a step of {own.name} has the answers 0 to {last}")
    return Trace(
        stage=own.name,
        algorithm=own.kind,
        step=step + 1,
        sample=sample,
        num_samples=len(rollout),
        prompt=made.tokenizer.decode(rollout.prompts[sample], clean_up_tokenization_spaces=False),
        completion=rollout.texts[sample],
        finish=rollout.finish[sample],
        score=float(rollout.scores[sample]),
        kl_coef=made.learner.collector.kl.coef,
        tokens=_tokens(made, own.config, rollout, sample),
    )


def _tokens(made: Assembled, config: OnPolicyConfig, rollout: Rollout, sample: int) -> list[TracedToken]:
    """The tokens of a row; the learner has learned from the rollout afterwards."""
    engine, learner = made.engine, made.learner
    policy, reference = present(engine.roles.policy), present(engine.roles.reference)
    read = learner.read(rollout)
    row = rollout.rows([sample])
    ids = row.completions[0]
    temperature = rollout.temperature
    with torch.no_grad():
        entropy = policy_outputs(policy, row.prompts, row.completions, temperature=temperature).entropy
        kl, _ = policy_kl(policy, reference, row.prompts, row.completions, temperature=temperature)
    learner.learn(rollout)
    with torch.no_grad():
        outputs = policy_outputs(policy, row.prompts, row.completions, allowed=row.allowed, temperature=temperature)
    after = outputs.logprobs
    assert entropy is not None and after is not None and row.reference_logprobs is not None
    moved = after[0] - old_logprobs(row)[0, : len(ids)]
    if isinstance(config, WholeCompletionConfig):
        moved = moved.sum().expand_as(moved)
    ratio, advantage = moved.exp(), read.advantages[sample, : len(ids)]
    clipped = None
    if isinstance(config, PPOConfig | WholeCompletionConfig | GRPOConfig):
        beyond = torch.where(advantage > 0, ratio > 1 + config.clip, ratio < 1 - config.clip)
        clipped = (beyond & (advantage != 0)).tolist()
    numbers = {
        "probability": row.logprobs[0].exp(),
        "reference": row.reference_logprobs[0].exp(),
        "kl": kl,
        "entropy": entropy[0],
        "reward": read.rewards[sample],
        "value": None if row.values is None else row.values[0],
        "advantage": advantage,
        "ratio": ratio,
    }
    columns: dict[str, Any] = {name: None if of is None else of[: len(ids)].tolist() for name, of in numbers.items()}
    columns["clipped"] = clipped
    columns["token"] = [made.tokenizer.decode([token], clean_up_tokenization_spaces=False) for token in ids]

    def at(place: int) -> dict[str, Any]:
        return {name: None if of is None else of[place] for name, of in columns.items()}

    return [TracedToken(**at(place)) for place in range(len(ids))]


def _stage_of(run: Path, named: str | None) -> tuple[StageRecord, StageRecord]:
    """The records of a run and of its stage that is traced."""
    record = read_stage(run)
    if record is None:
        raise ConfigError(f"{run}: holds no run; give the folder that `tuneful run` wrote")
    if record.kind:
        whole, of_stages = read_stage(run.resolve().parent), [record]
        if whole is None:
            raise ConfigError(f"{run}: the record of the run it is a stage of, one folder up, is gone")
    else:
        whole = record
        names = [table["name"] for table in record.manifest["recipe"]["stages"]]
        of_stages = [one for one in (read_stage(run / name) for name in names) if one is not None]
    on_policy = {one.name: one for one in of_stages if one.kind in learner_inputs.ON_POLICY}
    if named is None and len(on_policy) > 1:
        raise ConfigError(f"{run}: several stages learn from their own answers; say --stage {' or '.join(on_policy)}")
    chosen = on_policy.get(named) if named is not None else next(iter(on_policy.values()), None)
    if chosen is None:
        told = "no stage" if named is None else f'no stage called "{named}"'
        raise ConfigError(f"{run}: {told} that learns from its own answers{did_you_mean(named or '', on_policy)}")
    return whole, chosen
