"""TRL's settings: what `asdict(config)` or `config.to_dict()` gives, or a file for TRL's own scripts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

from tuneful.errors import ConfigError
from tuneful.pipeline.translate import trl_settings as known
from tuneful.pipeline.translate.trainer import batch, offline_steps, on_devices, optimization, training_arguments
from tuneful.pipeline.translate.translation import Reading, Translation, show

ON_POLICY: Final = {"reward": 0.0, "rl": 0.95, "dev": 0.05, "test": 0.0}
OFFLINE: Final = {"reward": 1.0, "rl": 0.0, "dev": 0.0, "test": 0.0}
NORMALISED: Final = {"reward": 0.95, "rl": 0.05, "dev": 0.0, "test": 0.0}
NO_LIMIT: Final = 1_000_000
"""Tokens that no row has; the model's context is the limit then."""
AVERAGING: Final = {"grpo": "completions", "dapo": "tokens", "bnpo": "tokens", "dr_grpo": "constant"}
DPO_LOSSES: Final = {"sigmoid": "dpo", "robust": "robust", "ipo": "ipo"}


def read(r: Reading, kind: str | None = None) -> Translation:
    """The settings of one of TRL's classes; kind: which, where the file does not tell.

    Raises ConfigError naming the setting, and for settings that several classes have.
    """
    kind = kind or kind_of(r)
    if kind == "ppo" and r.value("world_size") is not None:  # which the trainer fills in
        r.devices = r.whole("world_size", 1)
    r.put("algorithm", kind)
    r.put("seed", r.whole("seed", 42, least=0), "seed")
    READERS[kind](r)
    r.sweep(known.LEARNED[kind], "learned")
    r.sweep(known.OTHER[kind], "other")
    r.sweep({**known.EVERY_LEARNED, **known.SCRIPT_LEARNED}, "learned")
    r.sweep({**known.EVERY_OTHER, **known.SCRIPT_OTHER}, "other")
    training_arguments(r)
    version = known.PPO_VERSION if kind == "ppo" else known.VERSION
    return r.finish("TRL", known.CLASSES[kind], kind, known=f"{known.CLASSES[kind]} in TRL {version}")


def kind_of(r: Reading) -> str:
    """The class whose settings these are."""
    for name, other in known.ELSEWHERE.items():
        if name in r.given:
            raise ConfigError(f"{r.where}: {name} is of {other}, which is not translated; write the recipe by hand")
    telling = {kind: set(names.split()) for kind, names in known.TELLING.items()}
    found = set(r.given) & set().union(*telling.values())
    fitting = [kind for kind, names in telling.items() if found and found <= names]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        classes = " or ".join(known.CLASSES[kind] for kind in fitting)
        raise ConfigError(f"{r.where}: these may be settings of {classes}; say which, --kind {fitting[0]}")
    said = f"{', '.join(sorted(found))} belong to no class together" if found else "no setting tells whose they are"
    raise ConfigError(f"{r.where}: {said}; say which, --kind {' or '.join(telling)}")


def _ppo(r: Reading) -> None:
    _data(r, "prompts", ON_POLICY, "all prompts train but those of the evaluations")
    model = r.text("sft_model_path", "EleutherAI/pythia-160m")
    r.put("model", model, "sft_model_path")
    if r.value("model_name_or_path") is not None:
        r.lose_unless(r.seen["model_name_or_path"] == model, "model_name_or_path", "the policy is sft_model_path")
    reward = r.text("reward_model_path", "EleutherAI/pythia-160m")
    r.put("reward", reward, "reward_model_path")
    r.put("value", "model", note="TRL's is a model of its own")
    r.put("value_from", reward, "reward_model_path", note="as in TRL's script")
    _lora(r)
    size, names, note = batch(r)
    r.put("prompts_per_step", size, *names, note=note)
    epochs, parts = r.whole("num_ppo_epochs", 4), r.whole("num_mini_batches", 1)
    r.put("epochs", epochs, "num_ppo_epochs")
    accumulated = r.seen["gradient_accumulation_steps"]
    note = "TRL counts accumulation across minibatches, so here it steps once an epoch; 1 does as it does"
    r.put("minibatches", parts, "num_mini_batches", note=note if parts > 1 and accumulated > 1 else "")
    steps = _ppo_steps(r, size)
    for theirs, ours, default in (
        ("response_length", "max_new_tokens", 53),
        ("temperature", "temperature", 0.7),
        ("kl_coef", "kl_coef", 0.05),
        ("cliprange", "clip", 0.2),
        ("cliprange_value", "value_clip", 0.2),
        ("vf_coef", "value_coef", 0.1),
        ("gamma", "gamma", 1.0),
        ("lam", "lam", 0.95),
    ):
        r.put(ours, r.whole(theirs, 53) if isinstance(default, int) else r.number(theirs, default), theirs)
    r.put("whiten_rewards", r.flag("whiten_rewards", False), "whiten_rewards")
    r.put("missing_eos_penalty", r.number("missing_eos_penalty", 0.0), "missing_eos_penalty")
    r.lose_unless(r.text("kl_estimator", "k1") == "k1", "kl_estimator", "the reward takes k1 here")
    stop = r.value("stop_token")
    why = "answers end at the end token here; where TRL is told no stop_token, they go on to response_length"
    token = r.value("stop_token_id")
    r.lose_unless(stop == "eos" or token is not None, "stop_token", why)
    r.lose_unless(token is None, "stop_token_id", "answers end at the tokenizer's end token here")
    optimization(r, learning_rate=3e-6, steps=steps, steps_each=epochs * parts, clips=False)


def _ppo_steps(r: Reading, size: int) -> int | None:
    """Iterations, where they are known."""
    episodes = r.value("total_episodes")
    why = "the PPOTrainer does not read it; it counts episodes"
    r.lose_unless(r.number("max_steps", -1) <= 0, "max_steps", why, "other")
    if episodes is not None:
        steps = math.ceil(r.whole("total_episodes", 1) / size)
        r.put("num_steps", steps, "total_episodes", note=f"{size} to a step")
        r.value("num_train_epochs")
        return steps
    return _steps_of_epochs(r, size)


def _steps_of_epochs(r: Reading, prompts_per_step: int) -> int | None:
    epochs = r.number("num_train_epochs", 3.0)
    if r.rows is None:
        sum_up = f"{show(epochs)} x prompts / {prompts_per_step}"
        r.put("num_steps", 100, "num_train_epochs", note=f"to be set: {sum_up}; or say --rows", pending=True)
        return None
    steps = max(1, math.ceil(epochs * r.rows / prompts_per_step))
    r.put("num_steps", steps, "num_train_epochs", note=f"passes over {r.rows} prompts, {prompts_per_step} to a step")
    return steps


def _grpo(r: Reading) -> None:
    _group(r, samples=8, beta=0.0)
    if r.seen["beta"]:
        corrected = r.flag("use_bias_correction_kl", True)
        note = "k3 times the ratio: k2 has the same gradient" if corrected else ""
        r.put("kl_estimator", "k2" if corrected else "k3", "use_bias_correction_kl", note=note)
    else:
        r.value("use_bias_correction_kl")
    loss = r.text("loss_type", "dapo")
    if loss in AVERAGING:
        note = "over the tokens of the step, there of the micro-batch" if loss == "bnpo" else ""
        r.put("averaging", AVERAGING[loss], "loss_type", note=note)
    else:
        r.lose("loss_type", f"losses are the clipped one, averaged as {', '.join(AVERAGING)} do")
    scale = r.value("scale_rewards", "group")
    spread = {"group": "sample", "none": "none", "true": "sample", "false": "none"}.get(str(scale).lower())
    if spread is None:
        r.lose("scale_rewards", "advantages are divided by the spread of their group or by nothing; choose spread")
    else:
        r.put("spread", spread, "scale_rewards")


def _rloo(r: Reading) -> None:
    held, clip = r.numbers("reward_clip_range"), None
    if held is not None and len(held) == 2 and held[0] == -held[1]:
        clip = held[1]
    elif held is not None:
        r.lose("reward_clip_range", "a reward is held within plus and minus a number")
    _group(r, samples=2, beta=0.05, clip=clip)


def _group(r: Reading, *, samples: int, beta: float, clip: float | None = None) -> None:
    """What GRPO and RLOO share; clip: the reward is held within plus and minus this."""
    _data(r, "prompts", ON_POLICY, "all prompts train but those of the evaluations")
    _model(r)
    _lora(r)
    _reward(r, clip)
    steps = _answers(r, samples)
    r.put("kl_coef", r.number("beta", beta), "beta")
    r.put("clip", r.number("epsilon", 0.2), "epsilon")
    r.put("max_new_tokens", r.whole("max_completion_length", 512), "max_completion_length")
    if r.value("max_prompt_length") is not None:  # of older releases
        r.put("max_prompt_tokens", r.whole("max_prompt_length", 512), "max_prompt_length")
    r.put("temperature", r.number("temperature", 1.0), "temperature")
    r.put("missing_eos_penalty", 0.0, note="TRL takes nothing off an answer without an end")
    if r.value("epsilon_high") is not None:
        why = "a ratio is held on both sides alike, by clip"
        r.lose_unless(r.number("epsilon_high", 0.0) == r.seen["epsilon"], "epsilon_high", why)
    optimization(r, learning_rate=1e-6, steps=steps)


def _answers(r: Reading, samples: int) -> int | None:
    """Prompts, samples, minibatches and steps of GRPO and RLOO. Returns the optimizer steps, where they are known.

    samples: of a prompt, by default. A generation batch is cut into `steps_per_generation` slices, one to a device's
    pass, and an optimizer step takes `gradient_accumulation_steps` of them.
    """
    per_device, accumulated = r.whole("per_device_train_batch_size", 8), r.whole("gradient_accumulation_steps", 1)
    size, epochs = r.whole("num_generations", samples), r.whole("num_iterations", 1)
    said = [name for name in ("generation_batch_size", "steps_per_generation") if r.value(name) is not None]
    generated = r.whole("generation_batch_size", 1) if "generation_batch_size" in said else None
    slices = r.whole("steps_per_generation", 1) if "steps_per_generation" in said else None
    if generated is not None and slices is not None:  # the class has filled them in
        r.devices = max(1, generated // (per_device * slices))
    slices = slices or (accumulated if generated is None else max(1, generated // (per_device * r.devices)))
    generated = generated or per_device * r.devices * slices
    if slices < accumulated:  # several batches of answers are one step, which the same policy gave
        generated, slices = generated * accumulated // slices, accumulated
    if generated % size:
        whose = f"{generated} completions are sampled together {on_devices(r)}"
        raise ConfigError(f"{r.where}: {whose}, and are no groups of num_generations = {size}")
    prompts, parts = generated // size, round(slices / accumulated)
    names = ("per_device_train_batch_size", "gradient_accumulation_steps", *said)
    r.put("prompts_per_step", prompts, *names, "num_generations", note=f"{generated} answers; {on_devices(r)}")
    r.put("samples_per_prompt", size, "num_generations")
    r.put("minibatches", parts, *names, note="rounded" if slices % accumulated else "")
    r.put("epochs", epochs, "num_iterations")
    updates, most = epochs * parts, int(r.number("max_steps", -1))
    if most <= 0:
        found = _steps_of_epochs(r, prompts)
        return None if found is None else found * updates
    r.put("num_steps", math.ceil(most / updates), "max_steps", note=f"{updates} optimizer steps each")
    r.value("num_train_epochs")
    return most


def _dpo(r: Reading) -> None:
    _data(r, "comparisons", OFFLINE)
    _model(r)
    _lora(r)
    steps = offline_steps(r, "pairs_per_step", note="pairs of one prompt share weight 1 here")
    r.put("beta", r.number("beta", 0.1), "beta")
    losses = r.value("loss_type", ["sigmoid"])
    smoothing, [first, *more] = r.number("label_smoothing", 0.0), losses if isinstance(losses, list) else [losses]
    if more or first not in DPO_LOSSES:
        r.lose("loss_type", f"one loss of {', '.join(DPO_LOSSES)} has a counterpart; dpo stands in the recipe")
    elif first == "robust" and smoothing == 0:
        r.put("loss", "dpo", "loss_type", "label_smoothing", note="robust without noise")
    else:
        r.put("loss", DPO_LOSSES[first], "loss_type")
    if first == "robust" and not more and smoothing:
        r.put("label_noise", smoothing, "label_smoothing")
    else:
        why = f"TRL {known.VERSION} does not read it for {first}; in older releases sigmoid with it is label_noise"
        r.lose_unless(smoothing == 0, "label_smoothing", why, "other")
    _longest(r, "TRL cuts the end of a row, here prompts lose their beginning first")
    optimization(r, learning_rate=1e-6, steps=steps)


def _sft(r: Reading) -> None:
    _data(r, "demonstrations", OFFLINE)
    _model(r)
    _lora(r)
    steps = offline_steps(r, "demonstrations_per_step")
    _longest(r, "TRL cuts the end of a row, here prompts lose their beginning first")
    why = "the answer alone is learned; where this is null TRL does so for rows of prompt and completion alone"
    r.lose_unless(r.value("completion_only_loss") is True, "completion_only_loss", why)
    r.lose_unless(r.text("loss_type", "nll") in ("nll", "chunked_nll"), "loss_type", "the loss is nll")
    optimization(r, learning_rate=2e-5, steps=steps)


def _reward_model(r: Reading) -> None:
    _data(r, "comparisons", NORMALISED, "all rows train but those whose prompts scores are normalised on")
    model = _model(r)
    prompts = next(one.value for one in r.counterparts if one.ours == "comparisons")
    r.put(
        "normalise_prompts",
        prompts,
        note="scores get mean 0 and standard deviation 1 on answers to these, not so there",
    )
    r.put("normalise_model", model, note="to be set: the supervised model, which answers them", pending=True)
    _lora(r)
    steps = offline_steps(r, "prompts_per_step", note="prompts with all their pairs, which share weight 1")
    coef = r.value("center_rewards_coefficient")
    r.put(
        "center_coef",
        0.0 if coef is None else r.number("center_rewards_coefficient", 0.0),
        "center_rewards_coefficient",
    )
    _longest(r, "TRL leaves out pairs that are longer, here their prompts lose their beginning")
    optimization(r, learning_rate=1e-4, steps=steps)


READERS: Final[Mapping[str, Callable[[Reading], None]]] = {
    "ppo": _ppo,
    "dpo": _dpo,
    "grpo": _grpo,
    "rloo": _rloo,
    "sft": _sft,
    "reward": _reward_model,
}


def _data(r: Reading, ours: str, splits: Mapping[str, float], note: str = "all rows train") -> None:
    """The splits, and where the rows are."""
    r.put("splits", splits, note=note)
    name, split = r.value("dataset_name"), r.text("dataset_train_split", "train")
    if name is None:
        r.put(ours, f"{ours}.jsonl", note=f"to be written: the {ours} that TRL's trainer is given", pending=True)
        return
    r.put(ours, name if split == "train" else f"{name}/{split}", "dataset_name", "dataset_train_split")


def _model(r: Reading) -> str:
    name = r.value("model_name_or_path")
    if name is None:
        r.put("model", "./model", note="to be set: the model that TRL's trainer is given", pending=True)
        return "./model"
    model = r.text("model_name_or_path")
    r.put("model", model, "model_name_or_path")
    return model


def _reward(r: Reading, clip: float | None) -> None:
    """A reward model, functions, or both, with their weights."""
    model, functions = r.value("reward_model_name_or_path"), r.value("reward_funcs") or []
    functions = functions if isinstance(functions, list) else [functions]
    names = [] if model is None else [r.text("reward_model_name_or_path")]
    names += [f"./reward.py:{str(one).rpartition('.')[2]}" for one in functions]
    theirs = [name for name in ("reward_model_name_or_path", "reward_funcs") if r.seen[name]]
    theirs += [] if clip is None else ["reward_clip_range"]
    note = "to be written: gives one number for each answer" if functions else ""
    if not names:
        names, note = ["./reward.py:reward"], "to be written: the reward_funcs that TRL's trainer is given"
    weights = r.numbers("reward_weights")
    if weights is not None or len(names) > 1:
        weights = weights or [1.0] * len(names)
        if len(weights) != len(names):
            found = f"{len(weights)} numbers for {len(names)} rewards"
            raise ConfigError(f"{r.where}: reward_weights: {found}; name the rewards, in reward_funcs")
        if clip is not None:
            r.lose("reward_clip_range", "each part of a sum is held by a clip of its own")
        parts = [{"reward": name, "weight": weight} for name, weight in zip(names, weights, strict=True)]
        r.put("reward", parts, *theirs, "reward_weights", note=note, pending=bool(note))
    elif clip is not None:
        r.put("reward", [{"reward": names[0], "clip": clip}], *theirs, note=note, pending=bool(note))
    else:
        r.put("reward", names[0], *theirs, note=note, pending=bool(note))


def _lora(r: Reading) -> None:
    """The adapter, and the precision of the base under it."""
    names = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "load_in_4bit", "dtype", "torch_dtype")
    if not r.flag("use_peft", False):
        for name in names:
            if name in r.given:
                harmless = r.value(name) in (None, False, "float32", "auto") or name.startswith("lora")
                r.lose_unless(harmless, name, "weights that train are float32", "other")
        return
    r.put(
        "lora", {"rank": r.whole("lora_r", 16), "alpha": r.whole("lora_alpha", 32)}, "use_peft", "lora_r", "lora_alpha"
    )
    r.lose_unless(r.number("lora_dropout", 0.05) == 0, "lora_dropout", "adapters have no dropout")
    layers = r.value("lora_target_modules")
    everywhere = layers in ("all-linear", ["all-linear"])
    r.lose_unless(everywhere, "lora_target_modules", "adapters are on every linear layer but the head")
    precision = "dtype" if "dtype" in r.given else "torch_dtype"
    if r.flag("load_in_4bit", False):
        r.put("base_dtype", "nf4", "load_in_4bit")
        r.value(precision)
    elif r.text(precision, "float32") == "bfloat16":
        r.put("base_dtype", "bfloat16", precision)
    else:
        r.lose_unless(r.seen[precision] == "float32", precision, "base_dtype is float32, bfloat16 or nf4", "other")


def _longest(r: Reading, differs: str) -> None:
    longest = r.value("max_length", 1024)
    if longest is None:
        r.put("max_tokens", NO_LIMIT, "max_length", note="the model's context is the limit")
    else:
        r.put("max_tokens", r.whole("max_length", 1024), "max_length", note=differs)
    mode = r.text("truncation_mode", "keep_start")
    r.lose_unless(
        mode == "keep_start", "truncation_mode", "prompts lose their beginning, then answers their end", "other"
    )
