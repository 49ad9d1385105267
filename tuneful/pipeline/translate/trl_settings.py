"""The settings of TRL that have no counterpart, by reason.

A row is a reason and the settings that it is given for, with TRL's own defaults, at which they do no harm. A test holds
the rows, and what is read elsewhere, against the classes of the TRL that is installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

VERSION: Final = "1.16.0"
PPO_VERSION: Final = "1.12.0"
"""A release that still has it."""
CLASSES: Final = {
    "ppo": "PPOConfig",
    "dpo": "DPOConfig",
    "grpo": "GRPOConfig",
    "rloo": "RLOOConfig",
    "sft": "SFTConfig",
    "reward": "RewardConfig",
}

TELLING: Final[Mapping[str, str]] = {
    "ppo": (
        "num_ppo_epochs num_mini_batches total_episodes response_length sft_model_path reward_model_path "
        "whiten_rewards kl_coef cliprange cliprange_value vf_coef gamma lam missing_eos_penalty stop_token kl_estimator"
    ),
    "dpo": (
        "beta loss_type max_length truncation_mode label_smoothing loss_weights ld_alpha f_divergence_type "
        "precompute_ref_log_probs use_weighting discopop_tau"
    ),
    "grpo": (
        "beta loss_type num_generations num_iterations epsilon epsilon_high max_completion_length steps_per_generation "
        "generation_batch_size reward_weights delta scale_rewards importance_sampling_level top_entropy_quantile"
    ),
    "rloo": (
        "beta num_generations num_iterations epsilon epsilon_high max_completion_length steps_per_generation "
        "generation_batch_size reward_weights normalize_advantages reward_clip_range"
    ),
    "sft": "loss_type max_length truncation_mode packing completion_only_loss assistant_only_loss dataset_text_field",
    "reward": "max_length center_rewards_coefficient",
}
"""Settings by which a file tells whose it is: it has none that its class has not."""

ELSEWHERE: Final = {"desirable_weight": "KTOConfig", "cpo_alpha": "CPOConfig", "simpo_gamma": "CPOConfig"}
"""Settings of classes that are not translated."""

SCRIPT_LEARNED: Final[Mapping[str, str]] = {
    "the newest revision of the hub is taken": "model_revision=main",
    "an adapter is what lora says, in every linear layer": (
        "lora_target_parameters=null lora_modules_to_save=null use_rslora=false use_dora=false"
    ),
    "a base in 8 bits has no counterpart; base_dtype may be nf4": "load_in_8bit=false",
    "one data set stands for all": "dataset_config=null datasets=[] streaming=false dataset_streaming=false",
}
SCRIPT_OTHER: Final[Mapping[str, str]] = {
    "how a model is loaded": (
        "attn_implementation=null trust_remote_code=false model_init_kwargs=null lora_task_type=CAUSAL_LM "
        "use_bnb_nested_quant=false bnb_4bit_quant_type=nf4 bnb_4bit_quant_storage=null"
    ),
    "TRL's script": "config=null env=null ignore_bias_buffers=false dataset_test_split=test test_split_size=null",
}
"""Of the files that TRL's scripts read, which hold more than the class's own settings."""

EVERY_LEARNED: Final[Mapping[str, str]] = {
    "experts are balanced by the model's own coefficient": "router_aux_loss_coef=null",
    "dropout is off here": "disable_dropout=true",
    "the tokenizer and chat template are those of the model's directory": (
        "pad_token=null eos_token=null chat_template_path=null"
    ),
}
EVERY_OTHER: Final[Mapping[str, str]] = {
    "loading of data": "dataset_num_proc=null",
    "memory and speed": "padding_free=false pad_to_multiple_of=auto activation_offloading=false",
}

SAMPLED: Final[dict[str, str]] = {
    "the sampler would draw from another distribution than the policy that is updated": (
        "top_p=1.0 top_k=0 min_p=null repetition_penalty=1.0 generation_kwargs=null"
    ),
    "the reference stays what it is": "sync_ref_model=false ref_model_mixup_alpha=0.6 ref_model_sync_steps=512",
    "an answer that was cut off is learned from, less missing_eos_penalty": "mask_truncated_completions=false",
    "the template is the model's own": "chat_template_kwargs=null",
    "a ratio is held on both sides alike, by clip": "epsilon_high=null",
    "prompts come in a shuffled order": "shuffle_dataset=true",
}
SAMPLED_OTHER: Final[dict[str, str]] = {
    "where answers are sampled; see sampler": (
        "use_vllm=false vllm_mode=colocate vllm_model_impl=vllm vllm_enable_sleep_mode=false "
        "vllm_structured_outputs_regex=null vllm_server_base_url=null vllm_server_host=0.0.0.0 vllm_server_port=8000 "
        "vllm_server_timeout=240.0 vllm_group_port=51216 vllm_gpu_memory_utilization=0.3 vllm_max_model_length=null "
        "vllm_tensor_parallel_size=1 vllm_importance_sampling_correction=true "
        "vllm_importance_sampling_mode=sequence_mask vllm_importance_sampling_clip_max=3.0 "
        "vllm_importance_sampling_clip_min=null vllm_importance_sampling_cap=null cache_implementation=null "
        "use_transformers_continuous_batching=false transformers_continuous_batching_config=null "
        "use_transformers_paged=false ds3_gather_for_generation=true cast_lm_head_to_fp32=false"
    ),
    "logging": (
        "log_completions=false log_multimodal=true num_completions_to_print=null log_unique_prompts=false "
        "log_completions_hub_repo=null"
    ),
    "evaluation": "num_generations_eval=null",
    "loading of data": "remove_unused_columns=false",
    "dropout is off here, as in most models": "disable_dropout=false",
}

LEARNED: Final[Mapping[str, Mapping[str, str]]] = {
    "ppo": {"adapters are named by stage": "model_adapter_name=null ref_adapter_name=null"},
    "dpo": {
        "the loss is dpo, robust or ipo alone": (
            "loss_weights=null ld_alpha=null f_divergence_type=reverse_kl use_weighting=false"
        ),
        "the reference stays what it is": "sync_ref_model=false",
    },
    "grpo": SAMPLED
    | {
        "the loss is the clipped one of GRPO": (
            "delta=null importance_sampling_level=token top_entropy_quantile=1.0 off_policy_mask_threshold=null"
        ),
        "GRPO has no entropy bonus here": "entropy_coef=0.0 use_adaptive_entropy=false",
        "parts of a reward are summed, then compared": "multi_objective_aggregation=sum_then_normalize",
        "answers use no tools": "max_tool_calling_iterations=null",
    },
    "rloo": SAMPLED | {"advantages keep their scale": "normalize_advantages=false"},
    "sft": {
        "a row is an example of its own": "packing=false packing_strategy=bfd",
        "rows come in a shuffled order": "shuffle_dataset=false",
        "the last answer of a conversation is learned": "assistant_only_loss=false",
    },
    "reward": {},
}
OTHER: Final[Mapping[str, Mapping[str, str]]] = {
    "ppo": {
        "counted by the trainer": (
            "num_total_batches=null micro_batch_size=null local_batch_size=null batch_size=null "
            "local_mini_batch_size=null mini_batch_size=null"
        ),
        "memory and speed": "local_rollout_forward_batch_size=64 ds3_gather_for_generation=true",
        "logging": "num_sample_generations=10",
    },
    "dpo": {
        "the reference is computed once, before training": (
            "precompute_ref_log_probs=false precompute_ref_batch_size=null"
        ),
        "settings of losses that are not chosen": (
            "f_alpha_divergence_coef=0.5 discopop_tau=0.05 ref_model_mixup_alpha=0.6 ref_model_sync_steps=512"
        ),
    },
    "grpo": SAMPLED_OTHER
    | {
        "settings of losses that are not chosen": (
            "sapo_temperature_neg=1.05 sapo_temperature_pos=1.0 vespo_k_pos=2.0 vespo_lambda_pos=3.0 vespo_k_neg=3.0 "
            "vespo_lambda_neg=2.0 entropy_coef_min=0.0 entropy_coef_max=1.0 entropy_coef_delta=0.005 "
            "entropy_target=0.2"
        )
    },
    "rloo": SAMPLED_OTHER,
    "sft": {"loading of data": "dataset_text_field=text dataset_kwargs=null eval_packing=null"},
    "reward": {},
}
