"""The memory plan of a training stage, told before its first step, and what it really took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from tuneful.algorithms.ilql import ILQL
from tuneful.algorithms.kto import KTOConfig
from tuneful.algorithms.on_policy import Collector, OnPolicyConfig
from tuneful.algorithms.pairs import PairsConfig
from tuneful.algorithms.reward_model import RewardModel
from tuneful.algorithms.sft import SFT
from tuneful.data.batching import TOKENS_PER_PASS
from tuneful.data.templates import pair_ids, prompt_ids
from tuneful.engines import ranks
from tuneful.engines.local import EXACT_KL_VOCABULARY, LocalEngine
from tuneful.engines.memory import Parts, Pass, Plan, Row, exact_kl, held, sampling, scoring, total, updating
from tuneful.engines.remote_engine import RemoteEngine
from tuneful.engines.sharding import is_part, own_part
from tuneful.generation.sampling import Sampling
from tuneful.models.ragged import Ids
from tuneful.models.roles import Role
from tuneful.pipeline.context import Context
from tuneful.records import Comparison, Prompt, UnpairedPreference
from tuneful.rewards.composite import Composite
from tuneful.rewards.ensemble import EnsembleReward
from tuneful.rewards.reward import Reward
from tuneful.runs.directory import RunDirectory

MIB = 2**20

NUM_ENCODED = 2_000
"""Comparisons or answers that are encoded for the plan alone, before the reference reads them all."""

NUM_STEPS = 32
"""Steps that are looked at to find the largest."""


LOWER = {
    "updating": "lower tokens_per_microbatch or set recompute_layers",
    "scoring": "lower tokens_per_microbatch",
    "sampling": "lower max_new_tokens, max_prompt_tokens or the number of prompts",
    "normalising": "lower max_new_tokens or max_prompt_tokens",
}
"""The settings that make each phase need less."""


def tell_plan(context: Context, record: RunDirectory, engine: LocalEngine, plan: Plan) -> None:
    """Say what the stage will need and keep it in `run.json`; a warning where less is free. From now on peaks count."""
    context.display.note(in_words(plan, engine))
    free = _free(engine)
    more = plan.peak - plan.always["weights"]  # which are in memory already
    if free is not None and more > free:
        context.display.note(
            f"warning: {_mib(more)} more are to be taken and {_mib(free)} are free; {_lower(plan, engine)}"
        )
    begin_peaks(record, {"planned": plan.peak, "while": plan.phase, "parts": dict(plan.parts), "rough": plan.rough})


def begin_peaks(record: RunDirectory, planned: Mapping[str, Any] | None = None) -> None:
    """Keep in `run.json` what the process holds now, beside what is planned, and let it forget its peaks until now."""
    record.update(memory={**(planned or {}), "resident_before": _of_linux("/proc/self/status", "VmRSS")})
    _forget_peaks()


def record_peak(record: RunDirectory) -> None:
    """Keep beside it what the process held at its peak since `begin_peaks`, and what torch did on a GPU."""
    peaks = {"resident": _of_linux("/proc/self/status", "VmHWM")}
    if torch.cuda.is_available():
        peaks["allocated"] = torch.cuda.max_memory_allocated()
    record.update(memory=record.manifest["memory"] | peaks)


def in_words(plan: Plan, engine: LocalEngine) -> str:
    """The plan in a line."""
    if plan.peak < MIB:
        return "memory: less than 1 MiB"
    parts = ", ".join(f"{name} {_mib(size)}" for name, size in plan.parts.items() if size >= MIB / 2)
    about = "roughly" if plan.rough else "about"
    return (
        f"memory: {about} {_mib(plan.peak)} at most, while {plan.phase}: {parts}; {_lower(plan, engine)} to need less"
    )


def _lower(plan: Plan, engine: LocalEngine) -> str:
    role = _present(engine.roles.policy or engine.roles.reward)
    if 2 * (total(plan.always) + plan.parts.get("gradients", 0)) < plan.peak:
        return LOWER[plan.phase]
    if role.adapters is None:
        return "set lora"
    return LOWER[plan.phase] if role.half else 'set base_dtype = "bfloat16"'


def _mib(size: int) -> str:
    return f"{size / MIB:.0f} MiB" if size < 10_000 * MIB else f"{size / 2**30:.1f} GiB"


def _free(engine: LocalEngine) -> int | None:
    """Bytes that can be had where the models are; None where the system does not say."""
    if not _on_cpu(_present(engine.roles.policy or engine.roles.reward)):
        held_back = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return torch.cuda.mem_get_info()[0] + held_back
    return _of_linux("/proc/meminfo", "MemAvailable")


def _forget_peaks() -> None:
    """Let the kernel and torch forget their peaks until now; where the kernel does not, its peak is the process's."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _of_linux(file: str, name: str) -> int | None:
    """Bytes of a line `name:  123 kB`."""
    with suppress(OSError):
        for line in Path(file).read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None


def plan_sft(engine: LocalEngine, learner: SFT) -> Plan:
    """Of supervised fine-tuning."""
    rows = _rows([prompt for prompt, _ in learner.rows], [completion for _, completion in learner.rows])
    return _of_units(engine, [[row] for row in rows], learner.config.demonstrations_per_step)


def plan_scored(engine: LocalEngine, learner: ILQL) -> Plan:
    """Of learning from scored completions, roughly: what the heads on every state take is left out."""
    rows = _rows([one.prompt for one in learner.scored], [one.completion for one in learner.scored])
    plan = _of_units(engine, [[row] for row in rows], learner.config.completions_per_step)
    return Plan(always=plan.always, phases=plan.phases, rough=True)


def plan_reward(engine: LocalEngine, learner: RewardModel, normalised: Sequence[Prompt], how: Sampling) -> Plan:
    """Of training a reward model, after which a language model answers the prompts that it is normalised with.

    That model is taken to be of its size and tokenizer; beside an encoder, which no answering model is like, it is
    left out.
    """
    units = [_rows(group.prompts, group.completions) for group in learner.groups]
    plan = _of_units(engine, units, learner.config.prompts_per_step)
    reward = _present(engine.roles.reward)
    if reward.head is None:
        return plan
    one = Pass.of(reward)
    lengths = _longest_prompts(normalised, engine.tokenizer, how, len(normalised))
    asked = [Row(length, how.max_new_tokens, k) for k, length in enumerate(lengths)]
    answering = {"the answering model": plan.always["weights"], **sampling(one, asked, on_cpu=_on_cpu(reward))}
    return Plan(always=plan.always, phases={**plan.phases, "normalising": answering}, rough=plan.rough)


def plan_pairs(engine: LocalEngine, comparisons: Sequence[Comparison], config: PairsConfig) -> Plan:
    """Of a learner over comparisons; of many of these, as many as are quickly encoded, long and short."""
    by_length = sorted(
        comparisons, key=lambda c: len(c.prompt.text) + max(len(c.chosen), len(c.rejected)), reverse=True
    )
    units = []
    for one in by_length[:: -(-len(by_length) // NUM_ENCODED)]:
        sides = [
            pair_ids(one.prompt, text, engine.tokenizer, max_tokens=config.max_tokens)
            for text in (one.chosen, one.rejected)
        ]
        units.append(_rows([prompt for prompt, _ in sides], [completion for _, completion in sides]))
    plan = _of_units(engine, units, config.pairs_per_step)
    if engine.roles.reference is None:
        return plan
    rows = [row for unit in units for row in unit]
    read = scoring(Pass.of(engine.roles.reference), rows, tokens_per_microbatch=engine.tokens_per_microbatch)
    return Plan(always=plan.always, phases={"scoring": read, **plan.phases}, rough=plan.rough)


def plan_kto(engine: LocalEngine, answers: Sequence[UnpairedPreference], config: KTOConfig) -> Plan:
    """Of KTO, should a step read its longest prompts with its longest answers; of many answers, as in `plan_pairs`."""
    by_length = sorted(answers, key=lambda one: len(one.prompt.text) + len(one.completion), reverse=True)
    encoded = [
        pair_ids(one.prompt, one.completion, engine.tokenizer, max_tokens=config.max_tokens)
        for one in by_length[:: -(-len(by_length) // NUM_ENCODED)]
    ]
    rows = _rows([prompt for prompt, _ in encoded], [completion for _, completion in encoded])
    plan = _of_units(engine, [[row] for row in rows], config.answers_per_step)
    prompts, completions = (sorted(map(len, ids), reverse=True) for ids in zip(*encoded, strict=True))
    lengths = zip(prompts, completions, strict=True)
    mixed = [Row(min(p, max(config.max_tokens - c, 1)), c, k) for k, (p, c) in enumerate(lengths)]
    tokens = engine.tokens_per_microbatch
    read = [
        scoring(Pass.of(_present(engine.roles.reference)), rows, tokens_per_microbatch=tokens),
        scoring(Pass.of(_present(engine.roles.policy)), mixed[: config.answers_per_step], tokens_per_microbatch=tokens),
    ]
    return Plan(always=plan.always, phases={"scoring": max(read, key=total), **plan.phases}, rough=plan.rough)


def plan_on_policy(
    engine: LocalEngine,
    collector: Collector,
    *,
    others: Sequence[Reward] = (),
    evaluated: int = 0,
    checked: int = 0,
    rough: bool = False,
) -> Plan:
    """Of learning from the policy's own answers, should every one become as long as it may.

    others: rewards in memory beside the collector's. evaluated, checked: completions that are sampled and read together
    outside its steps, on dev prompts and by the start-up checks. rough: whether the learner takes what is not counted.
    """
    config = collector.config
    policy, value = _present(engine.roles.policy), engine.roles.value
    rewards = [role for reward in (collector.reward, *others) for role in _roles(reward)]
    beside = max(evaluated, checked)
    lengths = _longest_prompts(collector.prompts, engine.tokenizer, config, max(config.prompts_per_step, beside))
    asked = [
        Row(length, config.max_new_tokens, k)
        for k, length in enumerate(lengths[: config.prompts_per_step])
        for _ in range(config.samples_per_prompt)
    ]
    speaking = Pass.of(policy, entropy_grad=getattr(config, "entropy_coef", 0.0) > 0)
    apart = value is not None and not value.shares_trunk(policy)
    passes = [speaking, Pass.of(_present(value), speaks=False)] if apart else [speaking]
    # As the checks take them: shorter ones, of which more go into a pass, may need more.
    likely = _longest_prompts(collector.prompts[:beside], engine.tokenizer, config, beside)
    phases: dict[str, Parts] = {
        "scoring": max(
            (_reading(engine, passes, rewards, rows) for rows in (asked, _cycled(likely, config, beside)) if rows),
            key=total,
        )
    }
    sampled = [(speaking, asked), (speaking, _cycled(lengths, config, beside))]
    if isinstance(engine, RemoteEngine):  # here the reference alone answers, to dev prompts
        sampled = [(Pass.of(_present(engine.roles.reference)), _cycled(lengths, config, evaluated))]
    phases["sampling"] = max(
        (sampling(one, rows, on_cpu=_on_cpu(policy)) for one, rows in sampled if rows), key=total, default={}
    )
    phases["updating"] = updating(
        passes,
        _largest_minibatch(asked, config),
        trained=_trained(engine),
        tokens_per_microbatch=engine.tokens_per_microbatch,
        sent=_sent(engine),
    )
    roles = [*_all(engine), *rewards]
    return Plan(always=_held(engine, roles), phases=phases, rough=rough or _rough(roles))


def _largest_minibatch(asked: Sequence[Row], config: OnPolicyConfig) -> Sequence[Row]:
    """Of a step's rows, the longest prompts first: whole prompts, or fewer rows than a prompt has, of two prompts."""
    parts = getattr(config, "minibatches", 1)
    if parts <= config.prompts_per_step:
        return asked[: -(-config.prompts_per_step // parts) * config.samples_per_prompt]
    count = -(-config.completions_per_step // parts)
    begin = min(config.samples_per_prompt - 1, max(0, len(asked) - count))
    return asked[begin : begin + count]


def _reading(engine: LocalEngine, passes: Sequence[Pass], rewards: Sequence[Role], rows: Sequence[Row]) -> Parts:
    """The most that a look at rollouts without gradient takes: logprobs, values, exact KL, or scores."""
    tokens, speaking = engine.tokens_per_microbatch, passes[0]
    read = [scoring(one, rows, tokens_per_microbatch=tokens) for one in passes]
    if speaking.shape.vocabulary <= EXACT_KL_VOCABULARY:
        read.append(exact_kl(speaking, rows, tokens_per_microbatch=tokens))
    for role in rewards:
        one = Pass.of(role, speaks=False, ends_only=True)
        read.append(scoring(one, rows, tokens_per_microbatch=TOKENS_PER_PASS))
    return max(read, key=total)


def _cycled(lengths: Sequence[int], config: OnPolicyConfig, count: int) -> list[Row]:
    """Rows to prompts of these lengths, one after the other and again from the first."""
    return [Row(lengths[k % len(lengths)], config.max_new_tokens, k) for k in range(count)]


def _of_units(engine: LocalEngine, units: Sequence[Sequence[Row]], per_step: int) -> Plan:
    """Of steps over `per_step` units of rows that stay together.

    Looked at are steps of units of like length, long and short: the longest rows need not fill a micro-batch best.
    """
    role = _present(engine.roles.reward or engine.roles.policy)
    one = Pass.of(role) if engine.roles.reward is None else Pass.of(role, speaks=False, ends_only=True)
    by_length = sorted(units, key=lambda rows: max(row.prompt + row.completion for row in rows), reverse=True)
    steps = [by_length[at : at + per_step] for at in range(0, len(by_length), per_step)]
    found = [
        updating(
            [one],
            [row for rows in step for row in rows],
            trained=_trained(engine),
            tokens_per_microbatch=engine.tokens_per_microbatch,
            units=[unit for unit, rows in enumerate(step) for _ in rows],
            sent=_sent(engine),
        )
        for step in steps[:: -(-len(steps) // NUM_STEPS)]
    ]
    return Plan(
        always=_held(engine, _all(engine)), phases={"updating": max(found, key=total)}, rough=_rough(_all(engine))
    )


def _rows(prompts: Ids, completions: Ids) -> list[Row]:
    rows = zip(prompts, completions, strict=True)
    return [Row(len(prompt), len(completion), tuple(prompt)) for prompt, completion in rows]


def _longest_prompts(prompts: Sequence[Prompt], tokenizer: Any, config: Any, count: int) -> list[int]:
    """Tokens of the longest prompts: of those with most characters, which are quicker to find."""
    most = sorted(prompts, key=lambda prompt: len(prompt.text), reverse=True)[:count]
    return sorted(
        (len(prompt_ids(prompt, tokenizer, max_tokens=config.max_prompt_tokens)) for prompt in most), reverse=True
    )


def _trained(engine: LocalEngine) -> list[int]:
    return [own_part(weight).numel() for weight in engine.parameters()]


def _sent(engine: LocalEngine) -> int:
    """Numbers of `ranks.add_gradients`' message."""
    return sum(w.numel() for w in engine.parameters() if not is_part(w)) if ranks.world_size() > 1 else 0


def _held(engine: LocalEngine, roles: Sequence[Role]) -> Parts:
    heads = engine.roles.heads.parameters() if engine.roles.heads is not None else ()
    return held(roles, trained=_trained(engine), beside=[*engine.beside.values(), *heads])


def _all(engine: LocalEngine) -> list[Role]:
    roles = engine.roles
    return [role for role in (roles.policy, roles.reference, roles.value, roles.reward) if role is not None]


def _roles(reward: Reward) -> Iterator[Role]:
    """The models behind a reward; a function of one's own may hide some."""
    if isinstance(reward, Composite):
        for part in reward.parts:
            yield from _roles(part.reward)
    elif isinstance(reward, EnsembleReward):
        for member in reward.members:
            yield from _roles(member)
    elif isinstance(role := getattr(reward, "role", None), Role):
        yield role


def _rough(roles: Sequence[Role]) -> bool:
    """True for other families, and where layers are split over ranks: what is gathered is not counted."""
    return not all(Pass.of(role).ours and not any(map(is_part, role.model.parameters())) for role in roles)


def _on_cpu(role: Role) -> bool:
    return role.device.type == "cpu"


def _present(role: Role | None) -> Role:
    assert role is not None
    return role
