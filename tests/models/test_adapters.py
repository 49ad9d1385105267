"""Named adapters on one base: which are active, what they train, and that PEFT reads what we save."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from tuneful.errors import ConfigError, ModelError
from tuneful.generation.decoding import begin_decoding
from tuneful.models.adapters import AdapterSet, LoRA, wide_output
from tuneful.models.forward import lm_logits, policy_outputs
from tuneful.models.loading import load_language_model
from tuneful.models.roles import Role

IDS = torch.tensor([[1, 7, 9, 30, 12]])


@pytest.fixture
def model(wide_model_dir: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(wide_model_dir, dtype=torch.float32).requires_grad_(False)


def moved(adapters: AdapterSet, name: str, seed: int) -> None:
    """Give an adapter weights far from zero."""
    generator = torch.Generator().manual_seed(seed)
    for key, weight in adapters.named_parameters(name).items():
        if "lora_B" in key:
            weight.data.copy_(torch.randn(weight.shape, generator=generator) * 0.3)


def logits(model: Any, adapters: AdapterSet, *names: str) -> torch.Tensor:
    adapters.activate(names)
    with torch.no_grad():
        found: torch.Tensor = model(IDS).logits
    return found


@pytest.mark.parametrize("name", ["rank", "alpha"])
def test_a_shape_that_cannot_be(name: str) -> None:
    with pytest.raises(ConfigError) as error:
        LoRA(**{name: 0})
    assert str(error.value) == f"lora.{name} must be at least 1, got 0"


def test_a_new_adapter_changes_nothing(model: Any) -> None:
    before = model(IDS).logits
    adapters = AdapterSet(model)
    adapters.add("policy", LoRA(rank=4))
    assert torch.equal(logits(model, adapters, "policy"), before)
    assert torch.equal(logits(model, adapters), before)
    assert not model.training


def test_each_pass_runs_exactly_the_adapters_named(model: Any) -> None:
    bare = copy.deepcopy(model)(IDS).logits
    adapters = AdapterSet(model)
    adapters.add("policy", LoRA(rank=4))
    adapters.add("value", LoRA(rank=4), seed=1)
    moved(adapters, "policy", 1)
    moved(adapters, "value", 2)
    policy, value = logits(model, adapters, "policy"), logits(model, adapters, "value")
    both = logits(model, adapters, "policy", "value")
    assert torch.equal(logits(model, adapters), bare)
    assert torch.equal(logits(model, adapters, "policy"), policy)
    for one, other in ((policy, bare), (value, bare), (policy, value), (both, policy), (both, value)):
        assert (one - other).abs().max() > 0.1


def test_the_update_by_hand(model: Any) -> None:
    """W + alpha / rank * B A, put into a plain copy of the model."""
    plain = copy.deepcopy(model)
    adapters = AdapterSet(model)
    adapters.add("policy", LoRA(rank=2, alpha=8))
    moved(adapters, "policy", 1)
    weights = adapters.named_parameters("policy")
    for name, module in plain.named_modules():
        a, b = (weights.get(f"{name}.lora_{side}.policy.weight") for side in "AB")
        if a is not None and b is not None:
            module.weight.data += 8 / 2 * b.data @ a.data
    assert len(weights) == 2 * 7 * 2  # A and B of seven linear layers in two blocks
    assert_close(logits(model, adapters, "policy"), plain(IDS).logits, atol=1e-4, rtol=1e-4)


def test_the_parameters_of_one_adapter_are_its_own(model: Any) -> None:
    adapters = AdapterSet(model)
    adapters.add("policy", LoRA(rank=2))
    adapters.add("value", LoRA(rank=2))
    policy, value = adapters.named_parameters("policy"), adapters.named_parameters("value")
    assert not set(policy) & set(value)
    assert len(policy) == len(value)
    assert all("lora_" in name for name in [*policy, *value])
    assert not adapters.named_parameters("pol")


def test_the_start_is_drawn_from_the_seed(model: Any) -> None:
    def start(seed: int) -> torch.Tensor:
        adapters = AdapterSet(copy.deepcopy(model))
        adapters.add("policy", LoRA(rank=2), seed=seed)
        return next(w.detach() for n, w in adapters.named_parameters("policy").items() if "lora_A" in n)

    torch.manual_seed(5)
    first = start(1)
    torch.manual_seed(6)
    assert torch.equal(start(1), first)
    assert not torch.equal(start(2), first)


def test_adding_leaves_the_global_generator_alone(model: Any) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    AdapterSet(model).add("policy", LoRA(rank=2), seed=1)
    assert torch.equal(torch.rand(1), expected)


def test_gradients_wait_for_another_roles_pass(model: Any) -> None:
    """Two passes under different adapters, one backward: both adapters get their gradient, the base gets none."""
    adapters = AdapterSet(model)
    adapters.add("policy", LoRA(rank=2))
    adapters.add("value", LoRA(rank=2), seed=1)
    adapters.activate(("policy",))
    first = model(IDS).logits.square().sum()
    adapters.activate(("value",))
    second = model(IDS).logits.square().sum()
    adapters.activate(())
    (first + second).backward()
    for name in ("policy", "value"):
        grads = {n: w.grad for n, w in adapters.named_parameters(name).items() if "lora_B" in n}
        assert all(grad is not None and grad.any() for grad in grads.values()), name
    assert all(p.grad is None for n, p in model.named_parameters() if "lora_" not in n)


def test_an_adapter_off_gets_no_gradient(model: Any) -> None:
    adapters = AdapterSet(model)
    adapters.add("policy", LoRA(rank=2))
    adapters.add("value", LoRA(rank=2), seed=1)
    adapters.activate(("policy",))
    model(IDS).logits.square().sum().backward()
    assert all(w.grad is None for w in adapters.named_parameters("value").values())


@pytest.mark.parametrize(
    "kind",
    [
        {"target_modules": "all-linear", "use_dora": True},
        {"target_modules": "all-linear", "lora_bias": True},
        {"target_modules": ["q_proj", "v_proj", "up_proj"]},
        {"target_modules": "all-linear", "use_rslora": True, "rank_pattern": {"q_proj": 5}},
    ],
    ids=["DoRA", "biases", "some layers", "scales and ranks"],
)
def test_other_kinds_of_adapter_compute_what_peft_computes(model: Any, kind: dict[str, Any], tmp_path: Path) -> None:
    """Beside one of ours on every layer, in the pass of training and in that of decoding."""
    theirs: Any = get_peft_model(copy.deepcopy(model), LoraConfig(r=2, task_type="CAUSAL_LM", **kind)).eval()
    for name, weight in theirs.named_parameters():
        if "lora_" in name:
            weight.data += 0.3 * torch.randn(weight.shape)
    theirs.save_pretrained(tmp_path)
    adapters = AdapterSet(model)
    adapters.add("policy", LoRA(rank=2))
    moved(adapters, "policy", 1)
    adapters.load("other", tmp_path)
    role = Role("policy", model, adapters, ("other",))
    row = IDS[0].tolist()
    with torch.no_grad():
        expected = theirs(IDS).logits[0]
        found = policy_outputs(role, [row[:2]], [row[2:]]).logprobs
        assert (expected - logits(model, adapters)[0]).abs().max() > 0.1
        said = expected[1:-1].log_softmax(-1).gather(-1, IDS[0, 2:, None]).squeeze(-1)
        assert_close(found, said[None], atol=1e-5, rtol=1e-5)
        decoding = begin_decoding(role, rows=1, longest=8)
        assert_close(decoding.logits(decoding.admit([row], 1)), expected[-1:], atol=1e-5, rtol=1e-5)


def with_head(model: Any, seed: int, path: Path) -> Any:
    """PEFT's own model with an adapter on some layers and on the head, far from zero, saved at `path`."""
    config = LoraConfig(r=2, task_type="CAUSAL_LM", target_modules=["q_proj", "up_proj", "lm_head"])
    theirs: Any = get_peft_model(copy.deepcopy(model), config).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, weight in theirs.named_parameters():
        if "lora_" in name:
            weight.data.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    theirs.save_pretrained(path)
    return theirs


@pytest.mark.filterwarnings(
    "ignore:Model has `tie_word_embeddings=True`", "ignore:.*[Ss]etting `save_embedding_layers`"
)
@pytest.mark.parametrize("recompute", [False, True])
def test_an_adapter_on_the_head_beside_a_value_adapter(model: Any, recompute: bool, tmp_path: Path) -> None:
    """The value's pass runs between the logits and their backward pass, in which they are made again; its own adapter
    is on the head too. Against PEFT's models apart, all logits at once."""
    policy, value = (with_head(model, seed, tmp_path / str(seed)) for seed in (1, 2))
    adapters = AdapterSet(model)
    adapters.load("policy", tmp_path / "1")
    adapters.load("value", tmp_path / "2")
    scalar = torch.nn.Linear(32, 1)
    roles = [
        Role("policy", model, adapters, ("policy",), recompute=recompute),
        Role("value", model, adapters, ("value",), scalar, recompute=recompute),
    ]
    row = IDS[0].tolist()
    outputs = policy_outputs(roles[0], [row[:2]], [row[2:]], value=roles[1])
    assert outputs.logprobs is not None and outputs.values is not None
    (outputs.logprobs.sum() + outputs.values.square().sum()).backward()

    said = policy(IDS).logits[0, 1:-1].log_softmax(-1).gather(-1, IDS[0, 2:, None])
    states = value.base_model.model.model(IDS).last_hidden_state[0, 1:-1]
    (said.sum() + scalar(states).square().sum()).backward()
    for name, theirs in (("policy", policy), ("value", value)):
        found = {key.replace(f".{name}.", ".default."): w.grad for key, w in adapters.named_parameters(name).items()}
        expected = {key.removeprefix("base_model.model."): w.grad for key, w in theirs.named_parameters()}
        assert any("lm_head" in key for key in found)
        for key, grad in found.items():
            if name == "value" and "lm_head" in key:
                assert grad is None
            else:
                assert grad is not None and expected[key] is not None and expected[key].any()
                assert_close(grad, expected[key], atol=1e-4, rtol=1e-4)


class TestHeadInHalfPrecision:
    """A head in bfloat16 with an adapter of PEFT's on it, A, B and s = 6 / 2, against the update written out."""

    def head(self, *, dora: bool = False) -> tuple[Any, Any]:
        torch.manual_seed(0)
        config = GPT2Config(vocab_size=11, n_positions=8, n_embd=16, n_layer=1, n_head=2, tie_word_embeddings=False)
        model = GPT2LMHeadModel(config).eval().bfloat16()
        model.lm_head.weight.data.normal_()
        adapter = LoraConfig(r=2, lora_alpha=6, target_modules=["lm_head"], init_lora_weights=False, use_dora=dora)
        get_peft_model(model, adapter)
        layer = model.lm_head
        for factor in (layer.lora_A, layer.lora_B):
            factor["default"].weight.data.normal_(std=0.5)
        return model, layer

    def test_a_lora_is_summed_in_float32(self) -> None:
        model, layer = self.head()
        down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        assert {layer.base_layer.weight.dtype, down.dtype} == {torch.bfloat16, torch.float32}
        states = torch.randn(2, 5, 16).bfloat16().requires_grad_()
        exact = [tensor.detach().double().requires_grad_() for tensor in (states, down, up)]
        expected = exact[0] @ (layer.base_layer.weight.double() + 6 / 2 * exact[2] @ exact[1]).T

        found = lm_logits(model, states)
        assert found.dtype == torch.float32
        assert_close(found, expected.float(), atol=1e-4, rtol=1e-5)
        assert (layer(states) - expected).abs().max() > 0.01  # PEFT's own, in bfloat16

        of_logits = torch.randn(2, 5, 11).bfloat16().float()
        found = torch.autograd.grad(lm_logits(model, states), (states, down, up), of_logits)
        of_states, *of_factors = torch.autograd.grad(expected, exact, of_logits.double())
        assert_close(found[0], of_states.bfloat16(), atol=0.1, rtol=0.01)  # of two sums, each rounded to bfloat16
        for one, other in zip(found[1:], of_factors, strict=True):
            assert_close(one, other.float(), atol=1e-4, rtol=1e-5)

    def test_a_dora_is_left_to_peft(self) -> None:
        """m (W + s B A) / |W + s B A|, rows of length m."""
        model, layer = self.head(dora=True)
        length = layer.lora_magnitude_vector["default"].weight
        length.data.copy_(torch.linspace(1, 20, 11))
        states = torch.randn(5, 16).bfloat16()
        summed = (
            layer.base_layer.weight.float() + 6 / 2 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        )
        expected = states.float() @ (length[:, None] * summed / summed.norm(dim=1, keepdim=True)).T
        assert wide_output(layer, states) is None
        assert_close(lm_logits(model, states).float(), expected, atol=0.5, rtol=0.02)
        assert (states.float() @ summed.T - expected).abs().max() > 5

    def test_other_precisions_are_left_alone(self) -> None:
        states = torch.randn(5, 16)
        for dtype, wide in (
            (torch.float16, True),
            (torch.bfloat16, True),
            (torch.float32, False),
            (torch.float64, False),
        ):
            found = wide_output(torch.nn.Linear(16, 11).to(dtype), states.to(dtype))
            assert (found is not None) == wide
            assert found is None or found.dtype == torch.float32


class TestSaved:
    def test_peft_loads_what_we_save(self, model: Any, wide_model_dir: Path, tmp_path: Path) -> None:
        adapters = AdapterSet(model)
        adapters.add("policy", LoRA(rank=4))
        adapters.add("value", LoRA(rank=4), seed=1)
        moved(adapters, "policy", 1)
        moved(adapters, "value", 2)
        expected = logits(model, adapters, "policy")
        adapters.save("policy", tmp_path / "saved")
        assert (tmp_path / "saved" / "adapter_config.json").exists()
        assert not any(path.is_dir() for path in (tmp_path / "saved").iterdir())

        base = AutoModelForCausalLM.from_pretrained(wide_model_dir, dtype=torch.float32)
        theirs: Any = PeftModel.from_pretrained(base, tmp_path / "saved").eval()
        assert_close(theirs(IDS).logits, expected, atol=1e-5, rtol=1e-5)
        assert_close(load_language_model(tmp_path / "saved")(IDS).logits, expected, atol=1e-4, rtol=1e-4)

    def test_saving_again_replaces(self, model: Any, tmp_path: Path) -> None:
        adapters = AdapterSet(model)
        adapters.add("policy", LoRA(rank=4))
        adapters.save("policy", tmp_path / "saved")
        moved(adapters, "policy", 1)
        adapters.save("policy", tmp_path / "saved")
        loaded = load_language_model(tmp_path / "saved")
        assert_close(loaded(IDS).logits, logits(model, adapters, "policy"), atol=1e-4, rtol=1e-4)

    def test_gpt2s_transposed_layers(self, tmp_path: Path) -> None:
        config = GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, vocab_size=40, initializer_range=0.2)
        config.bos_token_id, config.eos_token_id = 1, 2
        GPT2LMHeadModel(config).save_pretrained(tmp_path / "base")
        model = load_language_model(tmp_path / "base").requires_grad_(False)
        adapters = AdapterSet(model)
        adapters.add("policy", LoRA(rank=4))
        moved(adapters, "policy", 1)
        expected = logits(model, adapters, "policy")
        assert (expected - logits(model, adapters)).abs().max() > 0.1
        adapters.save("policy", tmp_path / "saved")
        assert_close(load_language_model(tmp_path / "saved")(IDS).logits, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("changed", [{"r": 3}, {"target_modules": ["q_proj"]}], ids=str)
def test_an_adapter_that_does_not_fit_leaves_nothing_behind(model: Any, tmp_path: Path, changed: Any) -> None:
    """Its weights have other sizes or places than its own configuration says."""
    adapters = AdapterSet(model)
    adapters.add("policy", LoRA(rank=2))
    moved(adapters, "policy", 1)
    adapters.save("policy", tmp_path)
    before, names = logits(model, adapters, "policy"), [name for name, _ in model.named_parameters()]
    config = tmp_path / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changed))
    for _ in range(2):
        with pytest.raises(ModelError, match="the adapter fits other layers than those of"):
            adapters.load("other", tmp_path)
    assert [name for name, _ in model.named_parameters()] == names
    assert torch.equal(logits(model, adapters, "policy"), before)
