"""The page of families says what the code does: each row of its table is found out here, and each refusal is met."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    MambaConfig,
    MambaForCausalLM,
    MBartConfig,
    MBartForConditionalGeneration,
    MiniMaxConfig,
    MiniMaxForCausalLM,
    RwkvConfig,
    RwkvForCausalLM,
)

from tests.families.families import BART, BY_TURNS, FAMILIES, GEMMA, GROUPED, IDS, REWARDS, SHAPE, TRAINED
from tests.families.test_learners import CASES, NAMES
from tuneful.errors import ConfigError, ModelError, TunefulError
from tuneful.generation.decoding import refuse_other_cache, why_waves
from tuneful.models.adapters import LoRA
from tuneful.models.loading import load_language_model, load_scorer
from tuneful.models.roles import Role, ValueKind, check_roles, policy_roles, reward_roles
from tuneful.pipeline.families import refuse_unfit
from tuneful.pipeline.inputs import MAKES
from tuneful.pipeline.learner_inputs import DPOInputs

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "families.md"
ROWS = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
LEARNERS = ROWS[next(i for i, line in enumerate(ROWS) if line.startswith("| learner |")) :]
TABLE = ROWS[: -len(LEARNERS)]
VALUES: tuple[ValueKind, ...] = ("head", "adapter", "model")


def works(build: Callable[[], Any]) -> bool:
    """False where it is refused; other errors are passed on."""
    try:
        build()
    except TunefulError:
        return False
    return True


def row(name: str, folder: Path) -> str:
    """What a family can be, tried out."""
    policy = works(lambda: load_language_model(folder))
    reward = [lora for lora in (None, LoRA(rank=2)) if works(lambda lora=lora: reward_roles(folder, lora=lora))]  # type: ignore[misc]
    values = [
        kind
        for kind in VALUES
        if policy and works(lambda k=kind: policy_roles(folder, value=k, lora=LoRA(rank=2) if k == "adapter" else None))  # type: ignore[misc]
    ]
    enters = policy and why_waves(Role("policy", load_language_model(folder))) is None
    tried = "every stage" if name in TRAINED else "trained, used in PPO" if name in REWARDS else "read"
    cells = [
        "yes" if policy else "no",
        ("no", "all weights", "all weights, adapters")[len(reward)],
        ", ".join(f"`{kind}`" for kind in values) or "no",
        "yes" if enters else "no",
        tried,
    ]
    return f"| {name} | {' | '.join(cells)} |"


@pytest.mark.parametrize("name", FAMILIES)
def test_a_row_says_what_the_family_can_be(name: str, folder_of: Callable[[str], Path]) -> None:
    assert row(name, folder_of(name)) in TABLE


def test_the_table_holds_these_families() -> None:
    assert [line.split(" | ")[0].removeprefix("| ") for line in TABLE[1:]] == [*FAMILIES]


def test_the_table_of_learners_says_what_is_run() -> None:
    """All of them, as tests/families/test_learners.py and, for SFT, test_run.py do."""
    tried = {one: ["adapters"] for one, lora in CASES if lora} | {"sft": ["all weights", "adapters"]}
    for one, lora in CASES:
        if not lora:
            tried[one] = ["all weights", "adapters"]
    told = [line.strip("| ").split(" | ") for line in LEARNERS[1:]]
    assert {row[0].strip("`"): row[1:3] for row in told} == {
        one: [", ".join(weights)] * len(NAMES) for one, weights in tried.items() if "," not in one
    }
    trains = {kind for kind, makes in MAKES.items() if makes == ("a model",)}
    assert {row[0].strip("`") for row in told} == trains


def of_other_family(folder: Path) -> Path:
    MBartForConditionalGeneration(MBartConfig(vocab_size=20, **BART)).save_pretrained(folder)  # type: ignore[arg-type]
    return folder


def of_images(folder: Path) -> Path:
    text = Gemma3TextConfig(vocab_size=64, **GEMMA, **IDS, **BY_TURNS)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Gemma3Config(
        text_config=text.to_dict(), vision_config=small | {"image_size": 28, "patch_size": 14}, mm_tokens_per_image=1
    )
    Gemma3ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def masked(folder: Path) -> Path:
    BertForMaskedLM(BertConfig(vocab_size=20, **SHAPE)).save_pretrained(folder)
    return folder


REFUSALS: dict[str, tuple[type[TunefulError], str, Callable[[Callable[[str], Path], Path], Any]]] = {
    "another encoder-decoder": (
        ModelError,
        'encoder-decoders of the type "mbart" are not supported; these are: t5, bart',
        lambda _, folder: load_language_model(of_other_family(folder)),
    ),
    "another encoder-decoder as a reward model": (
        ModelError,
        'encoder-decoders of the type "mbart" are not supported; these are: t5, bart',
        lambda _, folder: load_scorer(of_other_family(folder)),
    ),
    "a value model beside an encoder-decoder": (
        ConfigError,
        (
            'value = "model" cannot follow a bart, an encoder-decoder, which keeps prompt and answer apart; '
            'set value = "head" or "adapter"'
        ),
        lambda folder_of, _: policy_roles(folder_of("BART"), value="model"),
    ),
    "values from its reward model": (
        ConfigError,
        (
            "value_from: the reward model of a t5 reads prompt and answer in one row, a value the states of the "
            "answer; leave value_from out"
        ),
        lambda folder_of, _: policy_roles(folder_of("T5"), value="adapter", value_from="r", lora=LoRA(rank=2)),
    ),
    "one base for policy and reward": (
        ConfigError,
        (
            "share_base: the reward model of a t5 trains all its weights, so it is no adapter on a base; leave "
            "share_base out"
        ),
        lambda *_: check_roles(adapters=True, share_base=True, family="t5"),
    ),
    "layers computed again": (
        ConfigError,
        (
            "recompute_layers: only for Llama, Mistral and Qwen, and the model is a t5; leave recompute_layers out and "
            "lower tokens_per_microbatch"
        ),
        lambda *_: refuse_unfit(DPOInputs(model="m", comparisons="c", recompute_layers=True), "t5"),
    ),
    "layers split over processes": (
        ConfigError,
        "shard: only for Llama, Mistral and Qwen, and the model is a t5; leave shard out",
        lambda *_: refuse_unfit(DPOInputs(model="m", comparisons="c", shard=True), "t5"),
    ),
    "adapters on an encoder's reward model": (
        ConfigError,
        "lora on an encoder reward model is not supported; leave lora out to train all weights",
        lambda folder_of, _: reward_roles(folder_of("BART"), lora=LoRA(rank=2)),
    ),
    "an encoder as a policy": (
        ModelError,
        "an encoder, which reads the words that it is to say; give a decoder",
        lambda _, folder: load_language_model(masked(folder)),
    ),
    "a model that reads images": (
        ModelError,
        'a "gemma3" reads images too, which is not supported; give a model of text alone',
        lambda _, folder: load_language_model(of_images(folder)),
    ),
    "a reward model that reads images": (
        ModelError,
        'a "gemma3" reads images too, which is not supported; give a model of text alone',
        lambda _, folder: load_scorer(of_images(folder)),
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_is_said_in_one_line(case: str, folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    error, told, build = REFUSALS[case]
    with pytest.raises(error) as caught:
        build(folder_of, tmp_path)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert told in " ".join(PAGE.read_text(encoding="utf-8").split())


def mamba() -> Any:
    return MambaForCausalLM(MambaConfig(vocab_size=20, hidden_size=16, num_hidden_layers=2, state_size=4))


def rwkv() -> Any:
    return RwkvForCausalLM(RwkvConfig(vocab_size=20, hidden_size=16, num_hidden_layers=2))


def minimax() -> Any:
    kinds = ["full_attention", "linear_attention"]
    sizes = GROUPED | {"num_hidden_layers": 2, "num_local_experts": 2, "layer_types": kinds}
    return MiniMaxForCausalLM(MiniMaxConfig(vocab_size=20, **sizes))


@pytest.mark.parametrize("build", [mamba, rwkv, minimax])
def test_recurrent_models_are_not_sampled_from(build: Callable[[], Any]) -> None:
    """In one line, from who asks that alone and from who asks whether rows may enter late."""
    model = build().eval()
    kind = model.config.model_type
    policy = Role("policy", model)
    told = "does not keep what it has read in a DynamicCache of transformers, so it cannot be sampled from"
    for ask in (why_waves, refuse_other_cache):
        with pytest.raises(ModelError) as caught:
            ask(policy)
        assert str(caught.value).endswith(f'a "{kind}" {told}; give another decoder')
    page = " ".join(PAGE.read_text(encoding="utf-8").split())
    assert told in page
    assert f'"{kind}"' in page


@pytest.mark.parametrize("name", ["T5", "BART", "Mistral with a window", "Gemma 2"])
def test_why_none_enter_is_told(name: str, folder_of: Callable[[str], Path]) -> None:
    with torch.no_grad():
        told = why_waves(Role("policy", load_language_model(folder_of(name))))
    assert told is not None
    assert told in " ".join(PAGE.read_text(encoding="utf-8").split())
