"""What the forward passes return around the logprobs (parity of those: tests/parity/test_forward.py)."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForSequenceClassification,
    CohereConfig,
    FalconH1Config,
    Gemma2Config,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    GraniteConfig,
    LlamaConfig,
    LlamaForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

from tuneful.engines.local import LocalEngine
from tuneful.errors import ModelError
from tuneful.functional import head as functional_head
from tuneful.models import forward
from tuneful.models.forward import (
    class_logits,
    lm_logits,
    policy_outputs,
    refuse_other_logprobs,
    reward_scores,
    value_outputs,
)
from tuneful.models.roles import Role, Roles

PROMPTS = [[1, 7, 9, 30], [1, 5], [1, 12, 13, 14, 15, 16]]
COMPLETIONS = [[8, 2], [20, 21, 22, 2], [9]]
ASKED, SAID = [0, 1, 2], [4, 9, 3, 7]
Side = Literal["right", "left"]


@pytest.fixture
def model(wide_model_dir: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(wide_model_dir, dtype=torch.float32)


def head() -> nn.Linear:
    linear = nn.Linear(32, 1)
    nn.init.normal_(linear.weight)
    nn.init.constant_(linear.bias, 0.5)
    return linear


def values_by_hand(model: Any, linear: nn.Linear, row: int) -> Tensor:
    """The head on the states from the last prompt token to the last but one of the row."""
    ids = PROMPTS[row] + COMPLETIONS[row]
    hidden = model.model(torch.tensor([ids])).last_hidden_state[0]
    return linear(hidden[len(PROMPTS[row]) - 1 : -1]).squeeze(-1)


@pytest.mark.parametrize("width", [None, 7])
def test_the_mask_covers_completions_and_nothing_stands_outside(model: Any, width: int | None) -> None:
    role = Role("policy", model)
    outputs = policy_outputs(role, PROMPTS, COMPLETIONS, width=width, value=Role("value", model, head=head()))
    assert outputs.mask.shape == (3, width or 4)
    assert outputs.mask.sum(-1).tolist() == [2, 4, 1]
    assert outputs.mask[0, :2].all()
    for numbers in (outputs.logprobs, outputs.entropy, outputs.values):
        assert numbers is not None
        assert numbers.dtype == torch.float32
        assert not numbers[~outputs.mask].any()
        assert numbers[outputs.mask].all()


def test_a_row_without_completion_counts_nothing(model: Any) -> None:
    whole = policy_outputs(Role("policy", model), PROMPTS, COMPLETIONS)
    gap = policy_outputs(Role("policy", model), [*PROMPTS, [1, 4]], [*COMPLETIONS, []])
    assert not gap.mask[3].any()
    assert whole.logprobs is not None
    assert gap.logprobs is not None
    assert_close(gap.logprobs[:3], whole.logprobs, atol=1e-5, rtol=0)


def test_rows_of_which_none_has_a_completion_count_nothing(model: Any) -> None:
    outputs = policy_outputs(Role("policy", model), [[1], [4]], [[], []], width=3)
    assert outputs.logprobs is not None
    assert outputs.logprobs.tolist() == [[0, 0, 0], [0, 0, 0]]


def test_a_prompt_needs_a_token(model: Any) -> None:
    with pytest.raises(ModelError, match=r"^a prompt has no tokens; every prompt needs at least one") as error:
        policy_outputs(Role("policy", model), [[1], []], [[5], [6]])
    assert "\n" not in str(error.value)


def test_values_are_the_head_on_the_states_before_each_token(model: Any) -> None:
    linear = head()
    value = Role("value", model, head=linear)
    shared = policy_outputs(Role("policy", model), PROMPTS, COMPLETIONS, value=value).values
    alone = value_outputs(value, PROMPTS, COMPLETIONS).values
    assert shared is not None
    assert alone is not None
    for row, completion in enumerate(COMPLETIONS):
        expected = values_by_hand(model, linear, row)
        assert_close(shared[row, : len(completion)], expected, atol=1e-5, rtol=1e-5)
        assert_close(alone[row, : len(completion)], expected, atol=1e-5, rtol=1e-5)


def test_values_of_another_model_come_from_that_model(model: Any, tiny_model: Any) -> None:
    linear = head()
    values = policy_outputs(
        Role("policy", model), PROMPTS, COMPLETIONS, value=Role("value", tiny_model, head=linear)
    ).values
    assert values is not None
    assert_close(values[1, :4], values_by_hand(tiny_model, linear, 1), atol=1e-5, rtol=1e-5)


def test_entropy_has_a_gradient_only_when_asked(model: Any) -> None:
    role = Role("policy", model)
    free = policy_outputs(role, PROMPTS, COMPLETIONS).entropy
    bound = policy_outputs(role, PROMPTS, COMPLETIONS, entropy_grad=True).entropy
    assert free is not None
    assert bound is not None
    assert not free.requires_grad
    assert bound.requires_grad
    assert_close(free, bound.detach())


def own_head(family: str) -> Any:
    """A decoder that does more than a matrix product to make its logits."""
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 40}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.5, "pad_token_id": 0}
    configs: dict[str, Any] = {
        "gemma2": Gemma2Config(**sizes, head_dim=8, final_logit_softcapping=2.0),
        "granite": GraniteConfig(**sizes, logits_scaling=8.0),
        "cohere": CohereConfig(**sizes, logit_scale=0.25),
        "falcon_h1": FalconH1Config(
            **sizes, lm_head_multiplier=0.25, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_d_state=8
        ),
    }
    return AutoModelForCausalLM.from_config(configs[family]).eval()


@pytest.mark.parametrize("family", ["gemma2", "granite", "cohere"])
def test_logits_are_those_of_the_families_own_heads(family: str) -> None:
    """Gemma 2 holds them within +-cap, Granite divides them, Cohere multiplies them."""
    model = own_head(family)
    ids = torch.tensor([[3, 7, 9, 11]])
    theirs = model(ids).logits
    plain = model.get_output_embeddings()(model.model(ids).last_hidden_state)
    assert (plain - theirs).abs().max() > 0.5
    assert_close(lm_logits(model, model.model(ids).last_hidden_state), theirs, atol=1e-5, rtol=1e-5)
    refuse_other_logprobs(Role("policy", model))


@pytest.mark.parametrize("family", ["gemma2", "granite", "cohere"])
def test_a_head_in_half_precision_gives_the_float32_logits_of_its_states(family: str) -> None:
    model = own_head(family)
    half = copy.deepcopy(model).bfloat16()
    model.load_state_dict({name: weight.float() for name, weight in half.state_dict().items()})
    states = half.model(torch.tensor([[3, 7, 9, 11]])).last_hidden_state
    assert_close(lm_logits(half, states), lm_logits(model, states.float()), atol=1e-5, rtol=1e-5)


def test_transformers_whole_model_is_asked_for_float32_logits_too() -> None:
    """Of logits up to 60 bfloat16 rounds the largest by .1: a mean of five above the bar would refuse the model."""
    config = GPT2Config(vocab_size=11, n_positions=16, n_embd=16, n_layer=1, n_head=2, tie_word_embeddings=False)
    model = GPT2LMHeadModel(config).eval()
    model.lm_head.weight.data *= 1_000
    half = Role("policy", model.bfloat16())
    found = forward.whole_model_logprobs(half, ASKED, SAID, 1.0)
    states = model.transformer(torch.tensor([[*ASKED, *SAID]])).last_hidden_state[0, 2:-1].float()
    logits = states @ model.lm_head.weight.float().T
    expected = logits.log_softmax(-1).gather(-1, torch.tensor(SAID)[:, None]).squeeze(-1)
    assert logits.abs().max() > 30
    assert_close(found, expected, atol=1e-4, rtol=1e-5)
    refuse_other_logprobs(half)
    assert not model.lm_head._forward_hooks and not model.lm_head._forward_pre_hooks


@pytest.mark.parametrize("family", ["gpt2", "cohere", "t5"])
def test_transformers_whole_model_makes_the_logits_of_few_tokens_at_once(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three answer tokens and then of the last; the prompt's are never made, 150,000 numbers each in Qwen."""
    monkeypatch.setattr(functional_head, "LOGITS_AT_ONCE", 1)
    monkeypatch.setattr(functional_head, "TOKENS_AT_ONCE", 3)
    if family == "gpt2":
        model: Any = GPT2LMHeadModel(GPT2Config(vocab_size=40, n_positions=16, n_embd=16, n_layer=1, n_head=2)).eval()
    elif family == "cohere":
        model = own_head(family)
    else:
        model = small_t5()
    if family == "t5":
        ids = torch.tensor([[*ASKED, model.config.eos_token_id]])
        logits = model(input_ids=ids, decoder_input_ids=torch.tensor([[0, *SAID[:-1]]])).logits[0]
    else:
        logits = model(torch.tensor([[*ASKED, *SAID]])).logits[0, len(ASKED) - 1 : -1]
    expected = 0.5 * logits
    expected = expected.gather(-1, torch.tensor(SAID)[:, None]).squeeze(-1) - expected.logsumexp(-1)
    seen: list[int] = []
    model.get_output_embeddings().register_forward_hook(lambda _, states, __: seen.append(states[0].shape[1]))
    assert_close(forward.whole_model_logprobs(Role("policy", model), ASKED, SAID, 2.0), expected, atol=1e-5, rtol=1e-5)
    assert seen == [3, 1]


def small_t5() -> Any:
    sizes: dict[str, Any] = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "vocab_size": 40}
    config = T5Config(**sizes, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1)
    return T5ForConditionalGeneration(config).eval()


def test_a_family_whose_logits_are_not_known_is_refused(tiny_tokenizer: Any) -> None:
    """Falcon-H1 multiplies them by a number of another name; an engine of it would train on other probabilities."""
    model = own_head("falcon_h1")
    model.resize_token_embeddings(len(tiny_tokenizer))
    message = r": logprobs of a falcon_h1 are .* away from those of transformers' own pass; this family is not"
    with pytest.raises(ModelError, match=message) as error:
        LocalEngine(Roles(policy=Role("policy", model)), tiny_tokenizer)
    assert "\n" not in str(error.value)


def test_in_half_precision_the_mean_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """One logprob of five that is .12 away is rounding in bfloat16 (docs/decisions/0009), and a fault in float32."""
    whole_model = forward.whole_model_logprobs

    def away(policy: Role, prompt: list[int], completion: list[int], temperature: float) -> Tensor:
        said = whole_model(policy, prompt, completion, temperature)
        return said + 0.12 * torch.tensor([len(completion) == 2, *[False] * (len(completion) - 1)])

    monkeypatch.setattr(forward, "whole_model_logprobs", away)
    config = GPT2Config(vocab_size=11, n_positions=16, n_embd=16, n_layer=1, n_head=2)
    refuse_other_logprobs(Role("policy", GPT2LMHeadModel(config).eval().bfloat16()))
    with pytest.raises(ModelError, match=r"logprobs of a gpt2 are 1\.2e-01 away"):
        refuse_other_logprobs(Role("policy", GPT2LMHeadModel(config).eval()))


def classifier(family: str, num_labels: int = 1) -> Any:
    ids = {"vocab_size": 40, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    settings: dict[str, Any] = {"num_labels": num_labels, "initializer_range": 0.2, **ids}
    if family == "gpt2":
        config: Any = GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, **settings)
        return GPT2ForSequenceClassification(config).eval()
    config = LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, **settings)
    return LlamaForSequenceClassification(config).eval()


def their_scores(model: Any, side: Side) -> Tensor:
    """The classifier's own logits of one padded batch; it finds the last token by the pad id, not the end id."""
    rows = [p + c for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]
    width = max(map(len, rows))
    pads = [[0] * (width - len(row)) for row in rows]
    ids = torch.tensor([row + pad if side == "right" else pad + row for row, pad in zip(rows, pads, strict=True)])
    attended = (ids != 0).long()
    positions = (attended.cumsum(-1) - 1).clamp_min(0)
    logits: Tensor = model(input_ids=ids, attention_mask=attended, position_ids=positions).logits
    return logits


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_decoders_scores_are_the_classifiers_own(family: str, side: Side) -> None:
    model = classifier(family)
    role = Role("reward", model, head=model.score)
    scores = reward_scores(role, PROMPTS, COMPLETIONS, padding=side)
    assert scores.dtype == torch.float32
    assert scores.std() > 0.05
    assert_close(scores, their_scores(model, side)[:, 0], atol=1e-5, rtol=0)
    assert_close(scores, their_scores(model, "right")[:, 0], atol=1e-5, rtol=0)


def test_a_score_does_not_depend_on_its_neighbours() -> None:
    model = classifier("llama")
    role = Role("reward", model, head=model.score)
    together = reward_scores(role, PROMPTS, COMPLETIONS)
    alone = [reward_scores(role, [p], [c]) for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]
    assert_close(torch.cat(alone), together, atol=1e-5, rtol=0)


def test_a_pad_id_equal_to_the_end_does_not_move_the_reading_position() -> None:
    """A classifier whose config calls the end token a pad would itself read one token early."""
    model = classifier("llama")
    role = Role("reward", model, head=model.score)
    before = reward_scores(role, PROMPTS, COMPLETIONS)
    model.config.pad_token_id = 2
    assert torch.equal(reward_scores(role, PROMPTS, COMPLETIONS), before)


def test_all_of_several_labels() -> None:
    model = classifier("llama", num_labels=3)
    role = Role("reward", model, head=model.score)
    assert_close(class_logits(role, PROMPTS, COMPLETIONS), their_scores(model, "right"), atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", ["right", "left"])
def test_an_encoders_scores_are_its_own_of_each_row_alone(side: Side) -> None:
    """Completion tokens are the second segment; positions begin at the row's first token on either side."""
    config = BertConfig(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=32,
        num_labels=1,
        initializer_range=0.3,
    )
    model: Any = BertForSequenceClassification(config).eval()
    theirs = [
        model(input_ids=torch.tensor([p + c]), token_type_ids=torch.tensor([[0] * len(p) + [1] * len(c)])).logits[0, 0]
        for p, c in zip(PROMPTS, COMPLETIONS, strict=True)
    ]
    ours = reward_scores(Role("reward", model), PROMPTS, COMPLETIONS, padding=side)
    assert torch.stack(theirs).std() > 0.05
    assert_close(ours, torch.stack(theirs), atol=1e-5, rtol=0)
