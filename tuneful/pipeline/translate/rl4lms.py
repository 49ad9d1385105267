"""RL4LMs' YAML files (Ramamurthy et al. 2022, arXiv 2210.01241; github.com/allenai/RL4LMs).

It runs stable-baselines3 with a step for each token: an iteration gathers n_envs x n_steps tokens, minibatches are of
tokens, and the KL is a mean over tokens. What a file does not say stands at the defaults of its learners.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from tuneful.algorithms.trpo import BACKTRACK
from tuneful.errors import ConfigError, did_you_mean
from tuneful.pipeline.recipe import LEFT_OUT
from tuneful.pipeline.translate.trainer import NO_CLIPPING, offline_steps, optimization, training_arguments
from tuneful.pipeline.translate.translation import Reading, Translation, flatten, show

LEAVES: Final = (
    "datapool.args",
    "alg.generation_kwargs",
    "alg.policy.args.optimizer_kwargs",
    "alg.training_args.fsdp_config",
    "alg.training_args.deepspeed",
    "train_evaluation.generation_kwargs",
)
"""Tables that are told as one."""
GENERATION: Final = "alg.policy.args.generation_kwargs."
ALL_TRAIN: Final = {"reward": 0.0, "rl": 0.95, "dev": 0.05, "test": 0.0}

DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "ppo": {"learning_rate": 3e-4, "n_steps": 2048, "gae_lambda": 0.95},
    "nlpo": {"learning_rate": 3e-4, "n_steps": 2048, "gae_lambda": 0.95},
    "a2c": {"learning_rate": 7e-4, "n_steps": 5, "gae_lambda": 1.0},
    "trpo": {"learning_rate": 1e-3, "n_steps": 2048, "gae_lambda": 0.95},
}
"""What its learners take where the file is silent and they differ."""

LEARNED: Final[Mapping[str, str]] = {
    "no answer is kept from ending here; let the reward say how long it should be": f"{GENERATION}min_length=0",
    "prompts are drawn evenly here": "env.args.priority_scale=0.0",
    "the optimizer is AdamW with betas 0.9 and 0.999": (
        "alg.policy.args.optimizer_kwargs={} alg.policy.args.optimizer_class=null alg.args.rms_prop_eps=0.00001"
    ),
    "rewards keep their scale here; of ppo, whiten_rewards = true divides them by their standard deviation": (
        "alg.kl_div.norm_reward=false"
    ),
}
OTHER: Final[Mapping[str, str]] = {
    "evaluation, which samples here as training does": (
        "train_evaluation.eval_batch_size=null train_evaluation.metrics=null train_evaluation.generation_kwargs=null "
        "train_evaluation.eval_every=null train_evaluation.save_every=null alg.generation_kwargs=null"
    ),
    "logging": "alg.args.verbose=0 alg.args.tensorboard_log=null",
    "devices": "alg.policy.args.apply_model_parallel=true alg.args.device=auto",
    "stable-baselines3's own, without effect on language models": (
        "alg.args.use_sde=false alg.args.sde_sample_freq=-1 alg.args.create_eval_env=false"
    ),
    "the tokenizer is used as its directory says": (
        "tokenizer.padding_side=left tokenizer.truncation_side=left tokenizer.pad_token_as_eos_token=true "
        "tokenizer.max_length=null env.args.context_start_token=null"
    ),
    "decoding of text for people to read": f"{GENERATION}post_processing_fn=null",
}


def read(tree: Mapping[str, Any], where: str, *, devices: int = 1, rows: int | None = None) -> Translation:
    """The settings of a file that has a table `alg`; devices, rows: see `Reading`.

    Raises ConfigError naming the setting, for an algorithm that RL4LMs has not, and for what is no number.
    """
    r = Reading(where, flatten(tree, LEAVES), devices, rows)
    algorithm = r.text("alg.id")
    known = [*DEFAULTS, "supervised"]
    if algorithm not in known:
        raise ConfigError(f'{where}: alg.id = "{algorithm}" is unknown{did_you_mean(algorithm, known)}')
    r.put("algorithm", "sft" if algorithm == "supervised" else algorithm, "alg.id")
    if algorithm == "supervised":
        _supervised(r)
        return _ended(r, algorithm, "sft")
    _inputs(r, algorithm)
    per_step = _amounts(r, algorithm)
    _learner(r, algorithm, per_step)
    _penalty(r, per_step)
    _generation(r)
    return _ended(r, algorithm, algorithm)


def _ended(r: Reading, kind: str, algorithm: str) -> Translation:
    r.sweep(LEARNED, "learned")
    r.sweep(OTHER, "other")
    return r.finish("RL4LMs", kind, algorithm, known=f"RL4LMs's {kind}")


def _inputs(r: Reading, algorithm: str) -> None:
    """Seed, splits, model, prompts, reward and value."""
    if r.value("alg.args.seed") is not None:
        r.whole("alg.args.seed", 0, least=0)
        r.put("seed", r.seen["alg.args.seed"], "alg.args.seed")
    r.put("splits", ALL_TRAIN, note="all prompts train but those of the evaluations")
    model = r.text("alg.policy.args.model_name")
    r.put("model", model, "alg.policy.args.model_name")
    tokenizer = r.text("tokenizer.model_name", model)
    r.lose_unless(tokenizer == model, "tokenizer.model_name", f"the tokenizer is that of {model}")
    _data(r, "prompts", "prompts")
    _reward(r)
    policy = r.text("alg.policy.id", "causal_lm_actor_critic_policy")
    if "seq2seq" in policy:
        note = "there a model of its own, which an encoder-decoder cannot be here"
        r.put("value", "head", "alg.policy.id", note=note)
        r.lose("alg.policy.id", "the value function is a head on the policy's trunk; theirs is a copy of the model")
    else:
        r.put("value", "model", "alg.policy.id", note="a model of its own, as there")
    if algorithm == "trpo":
        r.put("lora", {"rank": 16, "alpha": 32}, "alg.id", note="trpo needs an adapter; RL4LMs trains all weights")
        r.lose("alg.id", "RL4LMs trains all weights, and trpo here an adapter: see lora")


def _data(r: Reading, ours: str, what: str) -> None:
    pool = r.text("datapool.id", "")
    shown = show({"id": pool, "args": r.value("datapool.args", {})})
    r.put(
        ours,
        f"{what}.jsonl",
        "datapool.id",
        "datapool.args",
        note=f"to be written: the train split of {shown}",
        pending=True,
    )


def _reward(r: Reading) -> None:
    name, args = r.text("reward_fn.id"), "reward_fn.args."
    if name == "learned_reward":
        read = (f"{args}model_name", f"{args}label_ix", f"{args}include_prompt_for_eval")
        model, label, with_prompt = r.text(read[0]), r.whole(read[1], 0, least=0), r.flag(read[2], True)
        table = {"classifier": model, "label": label, "output": "probability"}
        note = "two segments here, prompt and answer, and one text there" if with_prompt else ""
        table |= {"with_prompt": True} if with_prompt else {}
        r.put("reward", table, "reward_fn.id", *read, note=note)
        return
    arguments = {full.removeprefix(args): r.value(full) for full in r.given if full.startswith(args)}
    note = f"to be written: what RL4LMs's {name} gives an answer"
    note += f" with {show(arguments)}" if arguments else ""
    note += "; prompts and answers are all that it is given, no reference texts"
    theirs = (f"{args}{argument}" for argument in arguments)
    r.put("reward", f"./reward.py:{name}", "reward_fn.id", *theirs, note=note, pending=True)


def _amounts(r: Reading, algorithm: str) -> int:
    """Steps, prompts, epochs and minibatches. Returns the prompts of a step."""
    r.put("num_steps", r.whole("train_evaluation.n_iters", 100), "train_evaluation.n_iters")
    envs, n_steps = r.whole("env.n_envs", 1), r.whole("alg.args.n_steps", DEFAULTS[algorithm]["n_steps"])
    length = r.whole("env.args.max_episode_length", 512)
    tokens = envs * n_steps
    prompts = max(1, round(tokens / length))
    gathered = ("env.n_envs", "alg.args.n_steps", "env.args.max_episode_length")
    r.put("prompts_per_step", prompts, *gathered, note=f"{tokens} tokens, {length} to an answer")
    if algorithm in ("ppo", "nlpo"):
        size = r.whole("alg.args.batch_size", 64)
        names = ["alg.args.batch_size"]
        if algorithm == "nlpo":
            size *= r.whole("alg.args.gradient_accumulation_steps", 1)
            names.append("alg.args.gradient_accumulation_steps")
        parts = math.ceil(tokens / size)
        note = f"{tokens} tokens, {size} to a minibatch"
        note += f": {parts}, but no more than a step has answers" if parts > prompts else ""
        r.put("minibatches", min(parts, prompts), *names, note=note)
        r.put("epochs", r.whole("alg.args.n_epochs", 10), "alg.args.n_epochs")
    if algorithm == "trpo":
        size = r.whole("alg.args.batch_size", 128)
        why = "a pass of the value function is one step here; raise value_epochs for as many steps"
        r.lose_unless(size >= tokens, "alg.args.batch_size", why)
    for theirs, ours, default in (("eval_every", "evaluate_every", 20), ("save_every", "save_every", 20)):
        name = f"train_evaluation.{theirs}"
        r.put(ours, r.whole(name, default), name)
    return prompts


def _learner(r: Reading, algorithm: str, per_step: int) -> None:
    """Losses, advantages and optimizer."""
    args = "alg.args."
    r.put("gamma", r.number(f"{args}gamma", 0.99), f"{args}gamma")
    r.put("lam", r.number(f"{args}gae_lambda", DEFAULTS[algorithm]["gae_lambda"]), f"{args}gae_lambda")
    if algorithm == "trpo":
        _trpo(r)
    else:
        weight = r.number(f"{args}vf_coef", 0.5)
        if algorithm == "a2c":
            r.put("value_coef", weight, f"{args}vf_coef")
        else:
            r.put("value_coef", 2 * weight, f"{args}vf_coef", note="twice theirs: the squared error has a half here")
        r.put("entropy_coef", r.number(f"{args}ent_coef", 0.0), f"{args}ent_coef")
        r.put("max_grad_norm", r.number(f"{args}max_grad_norm", 0.5), f"{args}max_grad_norm")
    normalised = r.flag(f"{args}normalize_advantage", algorithm != "a2c")
    if algorithm in ("ppo", "nlpo"):
        note = "over the step, there over the minibatch" if normalised else ""
        r.put("whiten_advantages", normalised, f"{args}normalize_advantage", note=note)
        _clipping(r)
    else:
        why = f"{algorithm} {'does not whiten' if algorithm == 'a2c' else 'whitens'} advantages here"
        r.lose_unless(normalised == (algorithm == "trpo"), f"{args}normalize_advantage", why)
    if algorithm == "nlpo":
        _mask(r)
    rate = r.number(f"{args}learning_rate", DEFAULTS[algorithm]["learning_rate"])
    r.put("optimization.learning_rate", rate, f"{args}learning_rate")
    r.put("optimization.schedule", "constant", note="stable-baselines3's")
    decay = "alg.policy.args.weight_decay"
    r.put("optimization.weight_decay", r.number(decay, 1e-6), decay)
    r.put("optimization.adam_eps", 1e-8, note="AdamW's own default")
    if algorithm == "a2c" and r.flag(f"{args}use_rms_prop", True):
        why = "RMSprop has no counterpart, AdamW's steps have another length: look for the learning rate anew"
        r.lose(f"{args}use_rms_prop", why)


def _clipping(r: Reading) -> None:
    r.put("clip", r.number("alg.args.clip_range", 0.2), "alg.args.clip_range")
    held = "alg.args.clip_range_vf"
    if r.value(held) is None:
        r.put("value_clip", 0.0, held, note="not held")
    else:
        r.put("value_clip", r.number(held, 0.0), held, note="the larger of both errors counts here, the held one there")
    if r.value("alg.args.target_kl") is not None:
        bound = 1.5 * r.number("alg.args.target_kl", 0.0)
        r.put(
            "max_update_kl", bound, "alg.args.target_kl", note="stable-baselines3 stops above 1.5 times its target_kl"
        )


def _mask(r: Reading) -> None:
    args = "alg.policy.args."
    kind = r.text(f"{args}mask_type", "learned_top_k")
    r.value(f"{args}top_mask")
    if kind == "learned_top_p":
        r.put("top_p", r.number(f"{args}top_mask", 0.9), f"{args}top_mask", f"{args}mask_type")
    else:
        r.put("top_p", 0.9, note=f"to be chosen: there is no counterpart to {kind}")
        r.lose(f"{args}mask_type", "the mask is learned_top_p here: the nucleus of the policy as it was")
        r.lose(f"{args}top_mask", f"it counts for {kind}; choose top_p")
    r.put("min_tokens", r.whole(f"{args}min_tokens_to_keep", 100), f"{args}min_tokens_to_keep")
    r.put("mask_every", r.whole(f"{args}target_update_iterations", 1000), f"{args}target_update_iterations")


def _trpo(r: Reading) -> None:
    args = "alg.args."
    for theirs, ours, default in (("target_kl", "max_kl", 0.01), ("cg_damping", "damping", 0.1)):
        r.put(ours, r.number(args + theirs, default), args + theirs)
    whole = (("cg_max_steps", "cg_iterations", 15), ("line_search_max_iter", "tries", 10))
    for theirs, ours, default in (*whole, ("n_critic_updates", "value_epochs", 10)):
        r.put(ours, r.whole(args + theirs, default), args + theirs)
    shrinking = r.number(f"{args}line_search_shrinking_factor", BACKTRACK)
    why = f"a try of the line search is {BACKTRACK} times the one before"
    r.lose_unless(shrinking == BACKTRACK, f"{args}line_search_shrinking_factor", why)
    factor = r.whole(f"{args}sub_sampling_factor", 1)
    note = "of the Fisher matrix alone, there of the gradient, too" if factor > 1 else ""
    r.put("fisher_share", 1 / factor, f"{args}sub_sampling_factor", note=note)
    r.put("max_grad_norm", NO_CLIPPING, note="RL4LMs does not clip the value function's gradient")


def _penalty(r: Reading, per_step: int) -> None:
    """The KL to the reference and its controller."""
    coef, target = "alg.kl_div.coeff", "alg.kl_div.target_kl"
    r.put("kl_coef", r.number(coef, 0.0), coef)
    if r.value(target) is None:
        return
    per_token, length = r.number(target, 0.0), r.seen["env.args.max_episode_length"]
    if r.seen[coef] == 0:
        r.lose(target, "a coefficient of 0 stays 0, so nothing is steered", "other")
        return
    note = f"nats per answer: {show(per_token)} per token, if all {length} are written; less where answers end before"
    r.put("kl_target", per_token * length, target, "env.args.max_episode_length", note=note)
    note = f"RL4LMs moves the coefficient by a tenth of the error in an iteration; answers in one: {per_step}"
    r.put("kl_horizon", 10 * per_step, target, note=note)


def _generation(r: Reading) -> None:
    """How answers are drawn."""
    length, most = r.seen["env.args.max_episode_length"], f"{GENERATION}max_new_tokens"
    longest = r.whole(most, length)
    note = "the smaller of the two" if longest != length else ""
    r.put("max_new_tokens", min(length, longest), "env.args.max_episode_length", most, note=note)
    if r.value("env.args.max_prompt_length") is not None:
        r.put("max_prompt_tokens", r.whole("env.args.max_prompt_length", 512), "env.args.max_prompt_length")
    for name in ("env.args.prompt_truncation_side", "alg.policy.args.prompt_truncation_side"):
        r.lose_unless(r.text(name, "left") == "left", name, "prompts that are too long lose their beginning here")
    why = "an answer ends at its end token here, there only where this is true"
    r.lose_unless(r.flag("env.args.terminate_on_eos", False), "env.args.terminate_on_eos", why)
    r.put("missing_eos_penalty", 0.0, note="RL4LMs takes nothing off an answer without an end")
    sampled = r.flag(f"{GENERATION}do_sample", False)
    r.lose_unless(sampled, f"{GENERATION}do_sample", "answers are sampled here; theirs are the likeliest tokens")
    heat = r.number(f"{GENERATION}temperature", 1.0)
    note = "" if heat == 1 else "divides logits in training, too, there in sampling alone"
    r.put("temperature", heat, f"{GENERATION}temperature", note=note)
    other = LEFT_OUT["ppo"]["top_k"]
    top_k = r.whole(f"{GENERATION}top_k", 50, least=0)  # transformers' own default, in force where the file is silent
    r.lose_unless(top_k == 0 or not sampled, f"{GENERATION}top_k", other)
    r.lose_unless(r.number(f"{GENERATION}top_p", 1.0) == 1, f"{GENERATION}top_p", other)


def _supervised(r: Reading) -> None:
    args = "alg.training_args."
    r.put("splits", {"reward": 1.0, "rl": 0.0, "dev": 0.0, "test": 0.0}, note="all rows train")
    r.put("model", r.text("alg.model_name"), "alg.model_name")
    tokenizer = r.text("tokenizer.model_name", r.seen["alg.model_name"])
    r.lose_unless(tokenizer == r.seen["alg.model_name"], "tokenizer.model_name", "the tokenizer is the model's own")
    side = r.text("tokenizer.truncation_side", "left")  # which the environment of the others sets anew
    r.lose_unless(side == "left", "tokenizer.truncation_side", "prompts that are too long lose their beginning here")
    _data(r, "demonstrations", "demonstrations")
    causal = r.text("alg.model_type", "causal") == "causal"
    r.lose_unless(not causal, "alg.model_type", "theirs learns the prompt, too; here the answer alone is learned")
    offline_steps(r, "demonstrations_per_step", prefix=args)
    optimization(r, prefix=args, learning_rate=5e-5)
    training_arguments(r, prefix=args)
