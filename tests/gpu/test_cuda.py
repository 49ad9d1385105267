"""On a GPU: the same numbers as on the CPU, and every kind of stage runs. `make gpu`; without a GPU these fail at once.

The CPU's numbers are tested against other sources everywhere else, so they are the truth here.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from tuneful.data.jsonl import write_jsonl
from tuneful.engines.local import LocalEngine
from tuneful.engines.optimization import Optimization
from tuneful.engines.protocol import Batch
from tuneful.errors import ModelError
from tuneful.functional.precision import wide_linear
from tuneful.generation.sampling import Sampling
from tuneful.models.adapters import LoRA
from tuneful.models.forward import Outputs, class_logits, policy_outputs
from tuneful.models.loading import load_language_model, load_scorer, load_tokenizer
from tuneful.models.roles import Role, policy_roles
from tuneful.pipeline.recipe import load_recipe
from tuneful.pipeline.run import run_recipe
from tuneful.records import Prompt

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def gpu() -> None:
    assert torch.cuda.is_available(), "no GPU is to be seen"


SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "initializer_range": 0.2}
SHAPE |= {"num_attention_heads": 4, "num_key_value_heads": 2}
PROMPTS = [Prompt.user("hello"), Prompt("how do i cook bread today"), Prompt("why"), Prompt.user("stop the rain now")]
IDS = [[1, 7, 9, 30], [1, 5], [4], [1, 40, 41, 42, 43, 44]]
ANSWERS = [[8, 2], [20, 21, 22, 2], [9], [30, 31, 2]]


def llama(size: int) -> Any:
    return LlamaForCausalLM(LlamaConfig(vocab_size=size, **SHAPE))


def qwen(size: int) -> Any:
    return Qwen3ForCausalLM(Qwen3Config(vocab_size=size, head_dim=8, **SHAPE))


def gpt2(size: int) -> Any:
    config = GPT2Config(vocab_size=size, n_embd=32, n_layer=2, n_head=4, n_positions=128, initializer_range=0.2)
    return GPT2LMHeadModel(config)


def t5(size: int) -> Any:
    shape = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "initializer_factor": 0.3}
    ids = {"pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0}
    return T5ForConditionalGeneration(T5Config(vocab_size=size, **shape, **ids))  # type: ignore[arg-type]


def saved(family: Callable[[int], Any], tokenizer: Any, path: Path) -> Path:
    torch.manual_seed(5)
    family(len(tokenizer)).save_pretrained(path)
    if family is t5:
        tokenizer.bos_token = tokenizer.chat_template = None
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(params=[llama, qwen, gpt2])
def family_dir(request: pytest.FixtureRequest, tiny_tokenizer: Any, tmp_path: Path) -> Path:
    return saved(request.param, tiny_tokenizer, tmp_path / "model")


@pytest.fixture(params=[llama, qwen, gpt2, t5])
def policy_dir(request: pytest.FixtureRequest, tiny_tokenizer: Any, tmp_path: Path) -> Path:
    """The families above, and one that can be a policy only."""
    return saved(request.param, tiny_tokenizer, tmp_path / "model")


def logprobs(role: Role | None) -> Tensor:
    assert role is not None
    found = policy_outputs(role, IDS, ANSWERS).logprobs
    assert found is not None
    return found


def on_cpu(model: Any) -> Any:
    return copy.deepcopy(model).cpu()


def test_models_are_loaded_onto_it(family_dir: Path) -> None:
    assert load_language_model(family_dir).device.type == load_scorer(family_dir).device.type == "cuda"


def test_log_probabilities_are_those_of_the_cpu(policy_dir: Path) -> None:
    model = load_language_model(policy_dir)
    found = logprobs(Role("policy", model))
    assert found.device.type == "cuda"
    assert_close(found.cpu(), logprobs(Role("policy", on_cpu(model))), atol=1e-4, rtol=1e-4)


def test_answers_are_those_of_the_cpu_and_so_are_their_numbers(policy_dir: Path) -> None:
    roles = policy_roles(policy_dir, value="head")
    assert roles.policy is not None
    engine = LocalEngine(roles, load_tokenizer(policy_dir))
    sampling = Sampling(num_samples=3, max_new_tokens=12)
    rollout = engine.sample(PROMPTS, sampling, seed=5, values=True)
    assert_close(engine.score("policy", rollout), rollout.logprobs, atol=1e-5, rtol=1e-5)
    beside = policy_roles(policy_dir, value="head")
    for role in (beside.policy, beside.reference, beside.value):
        assert role is not None
        role.model.cpu()
    assert rollout.completions == LocalEngine(beside, engine.tokenizer).sample(PROMPTS, sampling, seed=5).completions


@pytest.mark.parametrize("kind", ["tiny_model_dir", "tiny_bert_dir"])
def test_scores_are_those_of_the_cpu(kind: str, request: pytest.FixtureRequest) -> None:
    model = load_scorer(request.getfixturevalue(kind), seed=3)
    found = class_logits(Role("reward", model, head=getattr(model, "score", None)), IDS, ANSWERS)
    beside = on_cpu(model)
    expected = class_logits(Role("reward", beside, head=getattr(beside, "score", None)), IDS, ANSWERS)
    assert_close(found.cpu(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rows", [0, 1, 9])
def test_a_product_of_half_precision_is_float32(rows: int) -> None:
    x, weight = torch.randn(rows, 24).bfloat16(), torch.randn(37, 24).bfloat16()
    found = wide_linear(x.cuda(), weight.cuda())
    assert_close(found.cpu(), wide_linear(x, weight), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "nf4"])
def test_a_half_precision_base_learns(dtype: Any, policy_dir: Path) -> None:
    """Policy and reference are equal at the start, sampling leaves the gradient whole, the base stays as it was."""
    if dtype == "nf4" and json.loads((policy_dir / "config.json").read_text())["model_type"] == "gpt2":
        with pytest.raises(ModelError, match="no linear layers"):
            policy_roles(policy_dir, lora=LoRA(rank=4), dtype=dtype)
        return
    roles = policy_roles(policy_dir, lora=LoRA(rank=4), dtype=dtype)
    with torch.no_grad():
        before = logprobs(roles.reference)
        assert torch.equal(logprobs(roles.policy), before)
    optimizer = torch.optim.AdamW(roles.weights().values(), lr=0.01)
    first = logprobs(roles.policy).sum().detach()
    for _ in range(8):
        optimizer.zero_grad()
        (-logprobs(roles.policy).sum()).backward()
        assert all(weight.grad is not None for weight in roles.weights().values())
        optimizer.step()
    assert logprobs(roles.policy).sum() > first + 1
    assert torch.equal(logprobs(roles.reference), before)


def test_a_checkpoint_goes_on_where_it_was(policy_dir: Path, tmp_path: Path) -> None:
    def engine() -> LocalEngine:
        optimization = Optimization(learning_rate=1e-2, schedule="constant")
        return LocalEngine(policy_roles(policy_dir), load_tokenizer(policy_dir), optimization=optimization)

    def step(one: LocalEngine) -> None:
        def loss(outputs: Outputs, rows: list[int]) -> tuple[Tensor, dict[str, float]]:
            assert outputs.logprobs is not None
            return -outputs.logprobs.sum(), {}

        one.forward_backward(Batch(role="policy", prompts=IDS, completions=ANSWERS), loss)
        one.step(1.0)

    whole = engine()
    step(whole)
    whole.save(tmp_path)
    again = engine()
    again.load(tmp_path)
    assert again.weight_hash() == whole.weight_hash()
    for one in (whole, again):
        step(one)
    for name, weight in again.roles.weights().items():
        assert weight.device.type == "cuda"
        assert_close(weight, whole.roles.weights()[name], atol=1e-6, rtol=1e-5)


RECIPE = """
[splits]
reward = 0.5
rl = 0.3
dev = 0.1
test = 0.1

[[stage]]
name = "sft"
algorithm = "sft"
model = "{model}"
demonstrations = "{data}"
{lora}

[[stage]]
name = "reward"
algorithm = "reward"
model = "{model}"
comparisons = "{data}"
test = "{data}"
normalise_prompts = "{data}"
normalise_model = "{model}"
normalise_samples = 16
max_new_tokens = 4
optimization = {{ learning_rate = 0.01 }}

[[stage]]
name = "dpo"
algorithm = "dpo"
model = "{model}"
comparisons = "{data}"
optimization = {{ warmup_steps = 1 }}
{lora}

[[stage]]
name = "orpo"
algorithm = "orpo"
model = "{model}"
comparisons = "{data}"
{lora}

[[stage]]
name = "simpo"
algorithm = "simpo"
model = "{model}"
comparisons = "{data}"
{lora}

[[stage]]
name = "kto"
algorithm = "kto"
model = "{model}"
preferences = "{data}"
{lora}

[[stage]]
name = "ppo"
algorithm = "ppo"
model = "@sft"
prompts = "{data}"
reward = "@reward"
num_steps = 2
prompts_per_step = 8
minibatches = 2
max_new_tokens = 4
evaluate_every = 1
evaluate_prompts = 2
value = "{value}"
{lora}

[[stage]]
name = "evaluate"
do = "evaluate"
before = "@sft"
after = "@ppo"
prompts = "{data}"
max_new_tokens = 4
reward = "@reward"
"""


@pytest.mark.parametrize("lora", ["", "lora = { rank = 4 }"])
def test_a_step_of_every_stage(lora: str, family_dir: Path, tmp_path: Path) -> None:
    words = "bread rain dog house light door sun tea".split()
    rows = [
        {"prompt": f"how is the {one} {other}", "chosen": "it is good", "rejected": f"no {one}"}
        for one in words
        for other in words
    ]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    value = "adapter" if lora else "head"
    text = RECIPE.format(model=family_dir, data=tmp_path / "rows.jsonl", lora=lora, value=value)
    (tmp_path / "recipe.toml").write_text(text)
    run_recipe(load_recipe(tmp_path / "recipe.toml"), tmp_path / "run")
    steps = [json.loads(line) for line in (tmp_path / "run" / "ppo" / "metrics.jsonl").read_text().splitlines()]
    assert steps
    assert (tmp_path / "run" / "evaluate" / "report.html").exists()


LEARNER = """
[[stage]]
name = "{learner}"
algorithm = "{learner}"
model = "{model}"
prompts = "{data}"
reward = "{folder}/reward.py:variety"
num_steps = 2
prompts_per_step = 4
samples_per_prompt = 2
max_new_tokens = 4
evaluate_every = 1
evaluate_prompts = 2
lora = {{ rank = 4 }}
"""

ILQL = """
[[stage]]
name = "samples"
do = "generate"
model = "{model}"
prompts = "{data}"
num_samples = 2
max_new_tokens = 4

[[stage]]
name = "ilql"
algorithm = "ilql"
model = "{model}"
completions = "@samples"
reward = "{folder}/reward.py:variety"
completions_per_step = 32
"""


@pytest.mark.parametrize("learner", ["reinforce", "rloo", "grpo", "a2c", "trpo", "nlpo", "raft", "dqn", "ilql"])
def test_a_step_of_every_learner_that_answers_or_learns_from_scores(
    learner: str, policy_dir: Path, tmp_path: Path
) -> None:
    rows = [{"prompt": f"how is the {one} {other}"} for one in ("bread", "rain", "dog", "sun") for other in range(16)]
    write_jsonl(tmp_path / "prompts.jsonl", rows)
    (tmp_path / "reward.py").write_text(
        "def variety(prompts, completions):\n    return [float(len(set(one.text))) for one in completions]\n"
    )
    stages = ILQL if learner == "ilql" else LEARNER
    text = stages.format(learner=learner, model=policy_dir, data=tmp_path / "prompts.jsonl", folder=tmp_path)
    (tmp_path / "recipe.toml").write_text("[splits]\nreward = 0.5\nrl = 0.3\ndev = 0.1\ntest = 0.1\n" + text)
    run_recipe(load_recipe(tmp_path / "recipe.toml"), tmp_path / "run")
    steps = [json.loads(line) for line in (tmp_path / "run" / learner / "metrics.jsonl").read_text().splitlines()]
    assert {step["step"] for step in steps if step["kind"] == "train"} == {1, 2}
