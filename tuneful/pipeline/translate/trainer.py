"""transformers' TrainingArguments, which TRL's settings extend and RL4LMs' supervised files hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from tuneful.pipeline.translate.translation import Reading, show

NO_CLIPPING: Final = 1e9
"""A norm that no gradient reaches."""
SCHEDULES: Final = {"linear": "linear", "cosine": "cosine", "constant": "constant", "constant_with_warmup": "constant"}
ADAMW: Final = ("adamw_torch", "adamw_torch_fused", "adamw_hf", "adamw_apex_fused", "adamw_torch_xla")

LEARNED: Final[Mapping[str, str]] = {
    "AdamW's betas are 0.9 and 0.999": "adam_beta1=0.9 adam_beta2=0.999",
    "AdamW steps all weights that train": "optim_args=null optim_target_modules=null",
    "schedules have no settings of their own": "lr_scheduler_kwargs=null",
    "labels are not smoothed here": "label_smoothing_factor=0.0",
    "no noise is added to embeddings": "neftune_noise_alpha=null",
    "the last model is kept": "load_best_model_at_end=false",
    "rows come in a shuffled order": "train_sampling_strategy=random group_by_length=false",
    "rows that do not fill a step come in the next": "dataloader_drop_last=false",
    "tokens of all devices count the same here": "average_tokens_across_devices=true",
    "the batch is what the recipe says": "auto_find_batch_size=false",
}
OTHER: Final[Mapping[str, str]] = {
    "precision, here float32 but for a frozen base_dtype": (
        "bf16=true fp16=false bf16_full_eval=false fp16_full_eval=false tf32=null half_precision_backend=auto"
    ),
    "memory and speed; see tokens_per_microbatch and recompute_layers": (
        "gradient_checkpointing=true gradient_checkpointing_kwargs=null activation_checkpointing=null "
        "activation_checkpointing_kwargs=null torch_compile=false torch_compile_backend=null torch_compile_mode=null "
        "use_liger_kernel=false liger_kernel_config=null use_cache=false torch_empty_cache_steps=null"
    ),
    "loading of data": (
        "dataloader_num_workers=0 dataloader_pin_memory=true dataloader_persistent_workers=false "
        "dataloader_prefetch_factor=null dataloader_multiprocessing_context=null dataloader_in_order=true "
        "remove_unused_columns=true label_names=null length_column_name=length"
    ),
    "devices": (
        "use_cpu=false accelerator_config=null parallelism_config=null ddp_find_unused_parameters=null "
        "ddp_bucket_cap_mb=null ddp_broadcast_buffers=null ddp_static_graph=null ddp_backend=null ddp_timeout=1800 "
        'fsdp="" fsdp_config=null deepspeed=null local_rank=-1 full_determinism=false'
    ),
    "logging": (
        "logging_strategy=steps logging_steps=10 logging_first_step=false log_on_each_node=true "
        'logging_nan_inf_filter=true include_num_input_tokens_seen="no" log_level=passive log_level_replica=warning '
        'disable_tqdm=null report_to=none run_name=null project=huggingface debug="" skip_memory_metrics=true '
        "trackio_space_id=null trackio_bucket_id=null trackio_static_space_id=null logging_dir=null"
    ),
    "evaluation": (
        'eval_strategy="no" eval_steps=null eval_delay=0 per_device_eval_batch_size=8 prediction_loss_only=false '
        "eval_on_start=false eval_do_concat_batches=true eval_use_gather_object=false eval_accumulation_steps=null "
        "include_for_metrics=[] batch_eval_metrics=false metric_for_best_model=null greater_is_better=null"
    ),
    "saving; see save_every": (
        "output_dir=null save_only_model=false save_strategy=steps save_steps=500 save_on_each_node=false "
        "save_total_limit=null enable_jit_checkpoint=false push_to_hub=false hub_token=null hub_private_repo=null "
        "hub_model_id=null hub_strategy=every_save hub_always_push=false hub_revision=null ignore_data_skip=false "
        "restore_callback_states_from_checkpoint=false do_train=false do_eval=false do_predict=false "
        "resume_from_checkpoint=null overwrite_output_dir=false"
    ),
    "order of rows, which follows from the recipe's seed": "seed=42 data_seed=null",
}


def training_arguments(r: Reading, prefix: str = "") -> None:
    """All that has no counterpart and was not read before."""
    r.sweep(LEARNED, "learned", prefix)
    r.sweep(OTHER, "other", prefix)


def batch(r: Reading, prefix: str = "") -> tuple[int, tuple[str, ...], str]:
    """Rows of an optimizer step on all devices, the settings they follow from, and what to say of it."""
    names = (f"{prefix}per_device_train_batch_size", f"{prefix}gradient_accumulation_steps")
    size = r.whole(names[0], 8) * r.whole(names[1], 1) * r.devices
    return size, names, on_devices(r)


def on_devices(r: Reading) -> str:
    """How many devices were counted."""
    return f"on {r.devices} devices" if r.devices > 1 else "on 1 device, or say --devices"


def offline_steps(r: Reading, ours: str, prefix: str = "", note: str = "") -> int | None:
    """Rows of a step, and epochs; note: how steps differ. Returns the optimizer steps of the whole run, where known."""
    per_step, names, devices = batch(r, prefix)
    r.put(ours, per_step, *names, note=f"{devices}; {note}" if note else devices)
    passes, limit = f"{prefix}num_train_epochs", f"{prefix}max_steps"
    epochs, most = r.number(passes, 3.0), int(r.number(limit, -1))
    if most <= 0:
        r.value(limit)
        whole = max(1, round(epochs))
        r.put("epochs", whole, passes, note="" if whole == epochs else "rounded")
        r.lose_unless(whole == epochs, passes, f"passes are whole here: {whole}")
        return None if r.rows is None else math.ceil(r.rows * whole / per_step)
    r.value(passes)
    if r.rows is None:
        note = f"to be set: {most} steps of {per_step} rows are {most * per_step} / rows passes; or say --rows"
        r.put("epochs", 1, limit, note=note, pending=True)
        return most
    exact = most * per_step / r.rows
    whole = max(1, round(exact))
    r.put("epochs", whole, limit, note=f"{most} steps of {per_step} are {exact:.3g} passes over {r.rows} rows")
    r.lose_unless(whole == exact, limit, f"passes are whole here: {whole} in place of {exact:.3g}")
    return most


def optimization(
    r: Reading,
    *,
    learning_rate: float,
    prefix: str = "",
    steps: int | None = None,
    steps_each: int = 1,
    clips: bool = True,
) -> None:
    """Optimizer and schedule.

    learning_rate: the default. steps: of the schedule, where known; steps_each: optimizer steps of ours to each.
    """
    name = f"{prefix}learning_rate"
    r.put("optimization.learning_rate", r.number(name, learning_rate), name)
    name = f"{prefix}lr_scheduler_type"
    theirs = r.text(name, "linear")
    r.put("optimization.schedule", SCHEDULES.get(theirs, "linear"), name)
    r.lose_unless(theirs in SCHEDULES, name, f"schedules are {', '.join(sorted(set(SCHEDULES.values())))}")
    _warmup(r, prefix, theirs, steps, steps_each)
    name = f"{prefix}weight_decay"
    decay = r.number(name, 0.0)
    r.put("optimization.weight_decay", decay, name, note="biases and norms decay too, not so there" if decay else "")
    name = f"{prefix}adam_epsilon"
    r.put("optimization.adam_eps", r.number(name, 1e-8), name)
    name = f"{prefix}optim"
    optimizer = r.text(name, ADAMW[0])
    r.lose_unless(optimizer in ADAMW, name, "the optimizer is AdamW with moments in float32")
    name = f"{prefix}max_grad_norm"
    norm = r.number(name, 1.0)
    if not clips:
        r.put("max_grad_norm", NO_CLIPPING, name, note="this trainer of theirs clips no gradient")
    else:
        r.put("max_grad_norm", norm or NO_CLIPPING, name, note="" if norm else "0 is no clipping")


def _warmup(r: Reading, prefix: str, schedule: str, steps: int | None, steps_each: int) -> None:
    name = f"{prefix}warmup_steps"
    said = r.number(name, 0)
    if f"{prefix}warmup_ratio" in r.given and said == 0:  # of transformers before 5
        r.value(name)
        name = f"{prefix}warmup_ratio"
        said = r.number(name, 0.0)
    else:
        r.value(f"{prefix}warmup_ratio")
    if said == 0 or schedule == "constant":
        r.put("optimization.warmup_steps", 0, name, note="transformers' constant schedule has none" if said else "")
        return
    if said < 1 and steps is None:
        r.lose(name, f"warm-up is counted in steps: {show(said)} of all optimizer steps, or say --rows")
        return
    count = int(said) if said >= 1 else math.ceil(said * (steps or 0))
    note = f"{show(said)} of {steps} steps" if said < 1 else ""
    if steps_each > 1:
        note = f"{note or count}, each of {steps_each} optimizer steps here"
    r.put("optimization.warmup_steps", count * steps_each, name, note=note)
