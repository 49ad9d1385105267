"""What cannot be asked of an encoder-decoder, told before a run begins: no model is loaded, only its config read."""

from __future__ import annotations

from tuneful.errors import ConfigError
from tuneful.models.roles import LORA_ON_ENCODER, check_roles
from tuneful.pipeline import learner_inputs


def refuse_unfit(given: learner_inputs.TrainingInputs, family: str) -> None:
    """ConfigError for a setting that a stage cannot have whose model is an encoder-decoder of the type `family`."""
    if given.recompute_layers:
        raise ConfigError(
            f"recompute_layers: only for Llama, Mistral and Qwen, and the model is a {family}; leave recompute_layers "
            "out and lower tokens_per_microbatch"
        )
    if given.shard:
        raise ConfigError(f"shard: only for Llama, Mistral and Qwen, and the model is a {family}; leave shard out")
    if isinstance(given, learner_inputs.RewardInputs):
        if given.lora is not None:
            raise ConfigError(LORA_ON_ENCODER)
        return
    valued = given if isinstance(given, learner_inputs.ActorCriticInputs) else None
    check_roles(
        adapters=given.lora is not None,
        dtype=given.base_dtype,
        value=None if valued is None else valued.value,
        value_from=None if valued is None else valued.value_from,
        share_base=isinstance(given, learner_inputs.OnPolicyInputs) and given.share_base,
        family=family,
    )
