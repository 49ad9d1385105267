"""Forward passes of the roles over rows of prompt and completion ids.

Ids come in ragged and numbers go out as [R, T]: T completion tokens, one mask. Only completion positions reach a head.
Llama-like decoders run on ragged rows (llama.py), other models on rows that are padded on the right, where causal
attention never looks, so that a decoder needs no attention mask; no mask is ever read off a pad id. In an
encoder-decoder the encoder reads the prompt and the decoder says the completion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tuneful.errors import ModelError
from tuneful.functional.head import head_kl, head_logprobs, tokens_together
from tuneful.functional.logprobs import token_logprobs, vocabulary_logprobs
from tuneful.models.adapters import wide_output
from tuneful.models.llama import is_llama_like, own_states
from tuneful.models.ragged import Ids, Ragged, Rows, refuse_empty
from tuneful.models.roles import Role


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a forward pass returns for R rows; T is the width the caller asked for.

    mask: bool [R, T], True on completion tokens. logprobs, entropy, values: float32 [R, T], 0 where mask is False.
    scores: float32 [R]. states: [M, d] before each of the M completion tokens, row by row. None where the role has no
    such output.
    """

    mask: Tensor
    logprobs: Tensor | None = None
    entropy: Tensor | None = None
    values: Tensor | None = None
    scores: Tensor | None = None
    states: Tensor | None = None

    def spread(self, flat: Tensor) -> Tensor:
        """Numbers [M] of completion tokens as [R, T], zeros elsewhere."""
        return flat.new_zeros(self.mask.shape).masked_scatter(self.mask, flat)


def policy_outputs(
    policy: Role,
    prompts: Ids,
    completions: Ids,
    *,
    width: int | None = None,
    temperature: float = 1.0,
    value: Role | None = None,
    entropy_grad: bool = False,
    allowed: Sequence[Sequence[Sequence[int]]] | None = None,
    with_states: bool = False,
) -> Outputs:
    """Logprobs and entropy of every completion token under `policy`; values too when `value` is given.

    A value head on the policy's trunk reads the same hidden states; any other value role runs its own pass. allowed:
    per row and token the ids among which it is chosen, [] for all.
    """
    rows = _Completions(prompts, completions, width, policy.device)
    states = rows.predicting_states(policy)
    logprobs, entropy = head_logprobs(
        partial(_own_logits, policy),
        states,
        rows.targets,
        temperature=temperature,
        entropy_grad=entropy_grad,
        weights=_trained_in_head(policy),
        allowed=None if allowed is None else rows.flat(allowed),
    )
    values = None
    if value is not None:
        value_states = states if value.shares_trunk(policy) else rows.predicting_states(value)
        values = rows.spread(_apply(value.head, value_states))
    kept = states if with_states else None
    return Outputs(rows.mask, rows.spread(logprobs), rows.spread(entropy), values, states=kept)


def value_outputs(value: Role, prompts: Ids, completions: Ids, *, width: int | None = None) -> Outputs:
    """Values of the states before each completion token."""
    rows = _Completions(prompts, completions, width, value.device)
    return Outputs(rows.mask, values=rows.spread(_apply(value.head, rows.predicting_states(value))))


def plain_logits(policy: Role, prompts: Ids, completions: Ids) -> Tensor:
    """Logits before every completion token, float32 flat [M, V], by transformers' own layers alone and all at once.

    For what our passes leave out: gradients of gradients. They exist after `attend_eagerly`.
    """
    rows = _Completions(prompts, completions, None, policy.device)
    return lm_logits(policy.model, rows.predicting_states(policy, plain=True)).float()


def attend_eagerly(model: Any) -> None:
    """Attention of a transformers model by products and softmax alone: fused kernels have no gradient of a gradient.

    Part by part, for transformers 5.17 passes by an encoder and a decoder that hold configs of their own.
    """
    for part in model.modules():
        if hasattr(part, "set_attn_implementation"):
            part.set_attn_implementation("eager")


@torch.no_grad()
def top_tokens(
    policy: Role, prompts: Ids, completions: Ids, k: int, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """The k likeliest tokens before every completion token, int64 [M, k], and their logprobs, float32 [M, k].

    k: all of the vocabulary where that is smaller.
    """
    rows = _Completions(prompts, completions, None, policy.device)
    states = rows.predicting_states(policy)
    vocabulary = policy.model.config.get_text_config().vocab_size
    size = tokens_together(vocabulary)
    found = [
        vocabulary_logprobs(lm_logits(policy.model, part), temperature=temperature).topk(min(k, vocabulary), dim=-1)
        for part in torch.split(states, size)
    ]
    return torch.cat([one.indices for one in found]), torch.cat([one.values for one in found])


@torch.no_grad()
def policy_kl(
    policy: Role, reference: Role, prompts: Ids, completions: Ids, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """KL(policy, reference) in nats before every completion token, float32 flat [M], and the row of each, int [M]."""
    rows = _Completions(prompts, completions, None, policy.device)
    states, reference_states = rows.predicting_states(policy), rows.predicting_states(reference)
    heads = partial(_own_logits, policy), partial(_own_logits, reference)
    return head_kl(heads[0], states, heads[1], reference_states, temperature=temperature), rows.row


def whole_model_logprobs(policy: Role, prompt: Sequence[int], completion: Sequence[int], temperature: float) -> Tensor:
    """Logprobs [T] of a completion by transformers' whole model, the row alone: what every other pass must equal.

    Its head reads the states before completion tokens alone, of as many together as `head_logprobs` takes, and the
    rest of the model all of the row each time. In half precision its head gives float32, as ours does.
    """
    policy.activate()
    config, device = policy.model.config, policy.device
    inputs: dict[str, Any]
    if config.is_encoder_decoder:
        first, asked, before = 0, [*prompt, config.eos_token_id], [config.decoder_start_token_id, *completion[:-1]]
        inputs = {
            "input_ids": torch.tensor([asked], device=device),
            "decoder_input_ids": torch.tensor([before], device=device),
        }
    else:
        first = len(prompt) - 1
        inputs = {"input_ids": torch.tensor([[*prompt, *completion]], device=device), "use_cache": False}
    head = policy.model.get_output_embeddings()
    size = tokens_together(config.get_text_config().vocab_size)
    logprobs = []
    for part in torch.split(torch.arange(len(completion), device=device), size):
        with (
            head.register_forward_pre_hook(lambda _, states, at=first + part: states[0][:, at]),
            head.register_forward_hook(lambda layer, states, _: wide_output(layer, states[0])),
        ):
            logits = policy.model(**inputs).logits[0]
        said = torch.tensor(completion, device=device)[part]
        logprobs.append(token_logprobs(logits, said, temperature=temperature))
    return torch.cat(logprobs)


@torch.no_grad()
def refuse_other_logprobs(policy: Role) -> None:
    """ModelError when two rows, one shorter, have other logprobs here than transformers' whole model gives each.

    Any decoder can be loaded, and some do more to their logits than `lm_logits` knows of. Models that run on our own
    pass are held against it by the tests.
    """
    if is_llama_like(policy.model):
        return
    prompts, completions = [[0, 1, 2], [3]], [[2, 1], [0, 3, 1]]
    outputs = policy_outputs(policy, prompts, completions)
    assert outputs.logprobs is not None
    whole = [whole_model_logprobs(policy, p, c, 1.0) for p, c in zip(prompts, completions, strict=True)]
    away = (outputs.logprobs[outputs.mask] - torch.cat(whole)).abs()
    error = float(away.mean() if policy.half else away.max())
    if not error < policy.rounding:
        raise ModelError(
            f"{policy.model.name_or_path}: logprobs of a {policy.model.config.model_type} are {error:.1e} away from "
            "those of transformers' own pass; this family is not supported, please report it"
        )


def reward_scores(
    reward: Role, prompts: Ids, completions: Ids, *, padding: Literal["right", "left"] = "right"
) -> Tensor:
    """Raw scores float32 [R]: the first of the `class_logits`."""
    return class_logits(reward, prompts, completions, padding=padding)[:, 0]


def class_logits(
    reward: Role, prompts: Ids, completions: Ids, *, padding: Literal["right", "left"] = "right"
) -> Tensor:
    """Logits float32 [R, C] of C labels: a decoder's head at the last completion token, an encoder's own pooled ones.

    The reading position comes from the lengths, so it does not depend on what the pad token is or on which side it is.
    Encoders are padded on the right whatever `padding` says: their positions count from the first place of the row.
    """
    if shares_prompts(reward, padding):
        assert reward.head is not None
        reward.activate()
        rows = Ragged(prompts, completions, reward.device)
        return _read(reward.head, own_states(reward.model, rows, last_only=True, recompute=reward.before_recompute))
    if reward.head is None:
        padding = "right"
    ids, lengths = _padded(prompts, completions, reward.device, padding)
    positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    start = ids.shape[1] - lengths if padding == "left" else torch.zeros_like(lengths)
    attended = (positions >= start[:, None]) & (positions < (start + lengths)[:, None])
    reward.activate()
    if reward.head is None:
        segments = positions >= (start + torch.tensor([len(p) for p in prompts], device=ids.device))[:, None]
        types = {"token_type_ids": (segments & attended).long()} if _has_segments(reward.model) else {}
        logits = reward.model(input_ids=ids, attention_mask=attended.long(), **types).logits
        pooled: Tensor = logits.float()
        return pooled
    if padding == "right":
        hidden = reward.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    else:
        hidden = reward.model.base_model(
            input_ids=ids,
            attention_mask=attended.long(),
            position_ids=(positions - start[:, None]).clamp_min(0),
            use_cache=False,
        ).last_hidden_state
    last = start + lengths - 1
    states = hidden[torch.arange(len(ids), device=ids.device), last]
    return _read(reward.head, states)


def shares_prompts(reward: Role, padding: Literal["right", "left"]) -> bool:
    """Whether `class_logits` reads a prompt once for all its rows, which then belong into one pass."""
    return reward.head is not None and padding == "right" and is_llama_like(reward.model)


def lm_logits(model: Any, states: Tensor) -> Tensor:
    """The language model head on hidden states [..., d] -> [..., V], in float32 whatever the model is.

    A head that is no linear layer, or whose adapter is another kind than LoRA, gives the model's own precision.
    """
    config = model.config.get_text_config()
    if getattr(config, "scale_decoder_outputs", False):  # the first T5s, not 1.1 and FLAN
        states = states * config.d_model**-0.5
    head = model.get_output_embeddings()
    wide = wide_output(head, states)
    logits: Tensor = head(states) if wide is None else wide
    if (bias := getattr(model, "final_logits_bias", None)) is not None:  # BART's
        logits = logits + bias[0]
    if (scale := getattr(model, "logit_scale", None)) is not None:  # Cohere's
        logits = logits * scale
    if (divisor := getattr(config, "logits_scaling", None)) is not None:  # Granite's
        logits = logits / divisor
    cap = getattr(config, "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)


def encoded(model: Any, prompts: Ids) -> tuple[Tensor, Tensor]:
    """States of an encoder-decoder's encoder [R, P, d] over prompts, each with its end token, and their mask [R, P]."""
    rows = [[*prompt, model.config.eos_token_id] for prompt in prompts]
    ids, lengths = _padded(rows, [[]] * len(rows), model.device)
    attended = (torch.arange(ids.shape[1], device=ids.device)[None, :] < lengths[:, None]).long()
    states: Tensor = model.get_encoder()(input_ids=ids, attention_mask=attended).last_hidden_state
    return states, attended


class _Completions:
    """The M completion tokens of R rows in one pass, and the way between [R, T] and their flat list [M]."""

    def __init__(self, prompts: Ids, completions: Ids, width: int | None, device: torch.device) -> None:
        self.prompts, self.device = prompts, device
        self.completions = [c[:width] for c in completions]
        lengths = [len(c) for c in self.completions]
        tokens = Rows(lengths, device, width=max(*lengths, 1) if width is None else width)
        self.mask, self.row, self.place = tokens.mask, tokens.row, tokens.place
        self.targets = torch.tensor([token for c in self.completions for token in c], dtype=torch.int64, device=device)

    def predicting_states(self, role: Role, *, plain: bool = False) -> Tensor:
        """Hidden states [M, d] of the position before each completion token; plain: by transformers' layers alone."""
        role.activate()
        if role.model.config.is_encoder_decoder:
            states, attended = encoded(role.model, self.prompts)
            start = role.model.config.decoder_start_token_id
            before, _ = _padded([[start]] * len(self.completions), [c[:-1] for c in self.completions], self.device)
            hidden = role.model.get_decoder()(
                input_ids=before, encoder_hidden_states=states, encoder_attention_mask=attended, use_cache=False
            ).last_hidden_state
            return hidden[self.row, self.place]  # type: ignore[no-any-return]
        if is_llama_like(role.model) and not plain:
            rows = Ragged(self.prompts, self.completions, self.device, predicting=True)
            return own_states(role.model, rows, recompute=role.before_recompute)
        ids, _ = _padded(self.prompts, self.completions, self.device)
        hidden = role.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        starts = torch.tensor([len(p) for p in self.prompts], device=self.device)
        return hidden[self.row, starts[self.row] + self.place - 1]  # type: ignore[no-any-return]

    def flat(self, of_tokens: Sequence[Sequence[Sequence[int]]]) -> list[Sequence[int]]:
        """What rows hold for each of their tokens, as one list [M]."""
        return [one for row, c in zip(of_tokens, self.completions, strict=True) for one in row[: len(c)]]

    def spread(self, flat: Tensor) -> Tensor:
        """Flat [M] numbers to [R, T], zeros elsewhere."""
        return Outputs(self.mask).spread(flat)


def _own_logits(role: Role, states: Tensor) -> Tensor:
    """`lm_logits` where another role ran in between: adapters may stand on the head too."""
    role.activate()
    return lm_logits(role.model, states)


def _trained_in_head(role: Role) -> list[Tensor]:
    """Weights of the head that have a gradient in this role's pass: those of other adapters on it have none."""
    return [
        weight
        for name, weight in role.model.get_output_embeddings().named_parameters()
        if weight.requires_grad and ("lora_" not in name or any(f".{one}." in name for one in role.active))
    ]


def _padded(
    prompts: Ids, completions: Ids, device: torch.device, side: Literal["right", "left"] = "right"
) -> tuple[Tensor, Tensor]:
    rows = [[*p, *c] for p, c in zip(prompts, completions, strict=True)]
    refuse_empty(prompts)
    width = max(len(r) for r in rows)
    padded = [r + [0] * (width - len(r)) if side == "right" else [0] * (width - len(r)) + r for r in rows]
    return torch.tensor(padded, device=device), torch.tensor([len(r) for r in rows], device=device)


def _apply(head: nn.Linear | None, states: Tensor) -> Tensor:
    assert head is not None
    return _read(head, states).squeeze(-1)


def _read(head: nn.Linear, states: Tensor) -> Tensor:
    return head(states.to(head.weight.dtype)).float()  # type: ignore[no-any-return]


def _has_segments(model: Any) -> bool:
    return getattr(model.config, "type_vocab_size", 0) > 1
