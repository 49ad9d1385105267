"""Model directories in and out: dtypes, adapters merged, fresh heads, and one clear line for what cannot be loaded."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor
from torch.testing import assert_close
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
)

from tuneful.errors import ModelError
from tuneful.models.loading import (
    is_decoder,
    load_language_model,
    load_scorer,
    load_tokenizer,
    read_reward_file,
    save_model,
    scalar_head,
    write_reward_file,
)

IDS = torch.tensor([[1, 7, 9, 30, 12]])


@pytest.fixture(scope="module")
def adapter_dir(wide_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA that peft itself made and saved on the wide model, far from zero."""
    directory = tmp_path_factory.mktemp("adapter")
    base: Any = AutoModelForCausalLM.from_pretrained(wide_model_dir, dtype=torch.float32)
    model: Any = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    with torch.random.fork_rng():
        torch.manual_seed(9)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.data.normal_(std=0.3)
    model.save_pretrained(directory)
    AutoTokenizer.from_pretrained(wide_model_dir).save_pretrained(directory)
    return directory


def message(call: Callable[[], Any]) -> str:
    with pytest.raises(ModelError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def copied_tokenizer(tiny_model_dir: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The tiny tokenizer with its config changed."""
    directory = tmp_path / "changed"
    shutil.copytree(tiny_model_dir, directory)
    file = directory / "tokenizer_config.json"
    config = json.loads(file.read_text())
    change(config)
    file.write_text(json.dumps(config))
    return directory


def rename_base(adapter: Path, base: Path | None) -> None:
    file = adapter / "adapter_config.json"
    named = None if base is None else str(base)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": named}))


def write_tokenizer(directory: Path, special: list[str], **tokens: str | None) -> None:
    """A tokenizer of <end>, one word, these special tokens, and <unk> when it is one of `tokens`."""
    named = [token for token in ("<unk>",) if token in tokens.values()]
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(["word", "<end>", *named, *special])}))
    words.add_special_tokens([AddedToken(word, special=True) for word in ("<end>", *named, *special)])
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", **tokens).save_pretrained(directory)


class TestTokenizer:
    def test_a_path_or_its_text(self, tiny_model_dir: Path) -> None:
        for path in (tiny_model_dir, str(tiny_model_dir)):
            assert load_tokenizer(path).eos_token == "<eos>"

    def test_the_side_to_pad_on_is_the_tokenizers_own(self, tiny_model_dir: Path, tmp_path: Path) -> None:
        assert load_tokenizer(tiny_model_dir).padding_side == "right"
        path = copied_tokenizer(tiny_model_dir, tmp_path, lambda config: config.update(padding_side="left"))
        assert load_tokenizer(path).padding_side == "left"

    def test_no_end_token(self, tiny_model_dir: Path, tmp_path: Path) -> None:
        path = copied_tokenizer(tiny_model_dir, tmp_path, lambda config: config.pop("eos_token"))
        assert message(lambda: load_tokenizer(path)) == (
            f"{path}: the tokenizer has no end token; set eos_token in tokenizer_config.json"
        )

    def test_an_encoders_tokenizer_needs_no_end_token(self, tiny_model_dir: Path, tmp_path: Path) -> None:
        path = copied_tokenizer(tiny_model_dir, tmp_path, lambda config: config.pop("eos_token"))
        assert load_tokenizer(path, needs_end=False).eos_token is None

    @pytest.mark.parametrize("pad", [None, "<end>"])
    @pytest.mark.parametrize(
        ("special", "unknown", "expected"),
        [
            (["<vision_start>", "<vision_pad>", "<reserved_0>"], "<unk>", "<vision_pad>"),  # as Qwen's base models
            (["<reserved_0>", "<right_PAD>"], None, "<right_PAD>"),  # as Llama 3.1
            ([], "<unk>", "<unk>"),  # as Llama 2
            (["<header>", "<reserved_0>", "<reserved_1>"], None, "<reserved_0>"),  # as Llama 3
        ],
    )
    def test_a_token_to_pad_with_is_found(
        self, tmp_path: Path, special: list[str], unknown: str | None, expected: str, pad: str | None
    ) -> None:
        """And kept when the tokenizer is saved with a model."""
        write_tokenizer(tmp_path, special, unk_token=unknown, pad_token=pad)
        tokenizer = load_tokenizer(tmp_path)
        assert tokenizer.pad_token == expected
        assert tokenizer.pad_token_id < len(tokenizer) == 2 + len(special) + (unknown is not None)
        tokenizer.save_pretrained(tmp_path / "saved")
        assert AutoTokenizer.from_pretrained(tmp_path / "saved").pad_token == expected

    def test_a_pad_token_of_its_own_stays(self, tmp_path: Path) -> None:
        write_tokenizer(tmp_path, ["<pad>", "<blank>"], unk_token="<unk>", pad_token="<blank>")
        assert load_tokenizer(tmp_path).pad_token == "<blank>"

    @pytest.mark.parametrize("unknown", [None, "<end>"])
    def test_nothing_to_pad_with(self, tmp_path: Path, unknown: str | None) -> None:
        """GPT-2's unknown token is its end token."""
        write_tokenizer(tmp_path, ["<header>"], unk_token=unknown, pad_token=None)
        assert load_tokenizer(tmp_path).pad_token is None
        write_tokenizer(tmp_path, ["<header>"], unk_token=unknown, pad_token="<end>")
        found = message(lambda: load_tokenizer(tmp_path))
        assert found.startswith(f"{tmp_path}: pad_token and eos_token are both '<end>'; give the tokenizer its own pad")

    def test_missing_directory(self, tmp_path: Path) -> None:
        assert message(lambda: load_tokenizer(tmp_path / "none")) == f"{tmp_path / 'none'}: no such model directory"

    def test_a_directory_without_tokenizer(self, tmp_path: Path) -> None:
        assert message(lambda: load_tokenizer(tmp_path)).startswith(f"{tmp_path}: no tokenizer could be loaded: ")


class TestCausal:
    def test_dropout_is_off_and_the_dtype_is_given(self, wide_model_dir: Path) -> None:
        model = load_language_model(wide_model_dir)
        assert not model.training
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        half = load_language_model(wide_model_dir, dtype="bfloat16")
        assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
        assert_close(half(IDS).logits.float(), model(IDS).logits, atol=0.3, rtol=0.05)

    def test_an_adapter_is_merged(self, wide_model_dir: Path, adapter_dir: Path) -> None:
        """Against peft's own unmerged forward."""
        from peft import PeftModel

        base: Any = AutoModelForCausalLM.from_pretrained(wide_model_dir, dtype=torch.float32)
        bare = base(IDS).logits
        theirs = PeftModel.from_pretrained(base, adapter_dir)(IDS).logits
        assert (theirs - bare).abs().max() > 0.5
        ours = load_language_model(adapter_dir)
        assert_close(ours(IDS).logits, theirs, atol=1e-4, rtol=1e-4)
        assert not any("lora" in name for name, _ in ours.named_parameters())

    @pytest.mark.parametrize(
        "parts",
        [
            {"target_modules": ["q_proj", "lm_head"]},
            {"target_modules": ["q_proj", "embed_tokens"]},
            {"target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True},
            {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        ],
        ids=["head", "embedding", "both", "a whole head"],
    )
    def test_an_adapter_on_one_end_of_tied_weights(
        self, wide_model_dir: Path, tmp_path: Path, parts: dict[str, Any]
    ) -> None:
        """Against peft's unmerged forward, also after saving: the embedding and the head are no longer one tensor."""
        base: Any = AutoModelForCausalLM.from_pretrained(wide_model_dir, dtype=torch.float32)
        assert base.config.tie_word_embeddings
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft warns of what is tested here
            model: Any = get_peft_model(base, LoraConfig(r=2, task_type="CAUSAL_LM", **parts))
            torch.manual_seed(9)
            for weight in model.parameters():
                if weight.requires_grad:
                    weight.data.normal_(std=0.3)
            model.save_pretrained(tmp_path / "adapter")
            theirs = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter", dtype=torch.float32)(IDS).logits
        ours = load_language_model(tmp_path / "adapter")
        assert_close(ours(IDS).logits, theirs, atol=1e-4, rtol=1e-4)
        save_model(ours, load_tokenizer(wide_model_dir), tmp_path / "merged")
        again: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
        assert not again.config.tie_word_embeddings
        assert_close(again(IDS).logits, theirs, atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize("name", ["none", "~/no-such-model", "./none"])
    def test_missing_directory(self, name: str) -> None:
        assert message(lambda: load_language_model(Path(name))) == f"{Path(name)}: no such model directory"

    def test_a_directory_without_model(self, tmp_path: Path) -> None:
        assert message(lambda: load_language_model(tmp_path)).startswith(f"{tmp_path}: no model could be loaded")

    def test_a_classifier(self, wide_model_dir: Path, tmp_path: Path) -> None:
        """Its trunk would load under a head that is tied, or drawn at random."""
        save_model(load_scorer(wide_model_dir), load_tokenizer(wide_model_dir), tmp_path)
        assert message(lambda: load_language_model(tmp_path)) == (
            f"{tmp_path}: a reward model or classifier, no language model; give the model it is to judge"
        )

    def test_a_trunk_without_a_head(self, wide_model_dir: Path, tmp_path: Path) -> None:
        config = AutoConfig.from_pretrained(wide_model_dir)
        config.tie_word_embeddings = False
        AutoModelForCausalLM.from_config(config).base_model.save_pretrained(tmp_path)
        assert message(lambda: load_language_model(tmp_path)).endswith("its files have no lm_head.weight")

    def test_weights_that_were_cut_off(self, wide_model_dir: Path, tmp_path: Path) -> None:
        shutil.copytree(wide_model_dir, tmp_path / "cut")
        weights = tmp_path / "cut" / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:5000])
        assert message(lambda: load_language_model(tmp_path / "cut")).startswith(
            f"{tmp_path / 'cut'}: no AutoModelForCausalLM"
        )

    def test_a_model_without_a_tokenizer(self, wide_model_dir: Path, tmp_path: Path) -> None:
        shutil.copytree(wide_model_dir, tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*", "*.jinja"))
        assert message(lambda: load_tokenizer(tmp_path / "bare")).endswith("save the tokenizer of the model beside it")

    def test_an_adapter_of_a_wider_base(self, adapter_dir: Path, tmp_path: Path, tiny_model_dir: Path) -> None:
        config = AutoConfig.from_pretrained(tiny_model_dir)
        config.hidden_size = 64
        AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "wider")
        shutil.copytree(adapter_dir, tmp_path / "adapter")
        rename_base(tmp_path / "adapter", tmp_path / "wider")
        found = message(lambda: load_language_model(tmp_path / "adapter"))
        assert found.startswith(f"{tmp_path / 'adapter'}: the adapter does not fit its base {tmp_path / 'wider'}: ")

    def test_an_adapter_that_names_no_base(self, adapter_dir: Path, tmp_path: Path) -> None:
        shutil.copytree(adapter_dir, tmp_path / "adapter")
        rename_base(tmp_path / "adapter", None)
        assert 'set "base_model_name_or_path"' in message(lambda: load_language_model(tmp_path / "adapter"))

    def test_an_adapter_whose_base_is_gone(self, adapter_dir: Path, tmp_path: Path) -> None:
        shutil.copytree(adapter_dir, tmp_path / "adapter")
        gone = tmp_path / "gone"
        rename_base(tmp_path / "adapter", gone)
        assert str(gone) in message(lambda: load_language_model(tmp_path / "adapter"))


def test_saving_keeps_logits_and_chat_template(wide_model_dir: Path, tmp_path: Path) -> None:
    model = load_language_model(wide_model_dir)
    save_model(model, load_tokenizer(wide_model_dir), tmp_path / "saved")
    again: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=torch.float32)
    assert torch.equal(again(IDS).logits, model(IDS).logits)
    assert load_tokenizer(tmp_path / "saved").chat_template == load_tokenizer(wide_model_dir).chat_template


def test_a_long_text_is_counted_without_a_warning(wide_model_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Rows are cut after they are counted, so nothing will be out of range."""
    tokenizer = load_tokenizer(wide_model_dir)
    tokenizer.model_max_length = 4
    logging.getLogger("transformers").addHandler(caplog.handler)
    assert len(tokenizer.encode("hot " * 9)) > 4
    logging.getLogger("transformers").removeHandler(caplog.handler)
    assert caplog.text == ""


class TestScorer:
    def test_a_fresh_head_on_the_language_models_trunk(self, wide_model_dir: Path) -> None:
        model = load_scorer(wide_model_dir)
        hidden = model.base_model(IDS).last_hidden_state
        assert_close(hidden, load_language_model(wide_model_dir).base_model(IDS).last_hidden_state)
        assert is_decoder(model)
        assert scalar_head(model).bias is None
        assert not model.training

    def test_the_head_is_drawn_from_the_seed(self, wide_model_dir: Path) -> None:
        """N(0, 1 / 33): 20 draws of 32 give its standard deviation, .174, within 4 standard errors (.005)."""

        def head(seed: int) -> Tensor:
            return scalar_head(load_scorer(wide_model_dir, seed=seed)).weight.detach()

        assert torch.equal(head(3), head(3))
        many = torch.cat([head(seed) for seed in range(20)])
        assert abs(float(many.std()) - 33**-0.5) < 0.02
        assert abs(float(many.mean())) < 0.03

    def test_a_saved_reward_model_comes_back_as_it_was(self, wide_model_dir: Path, tmp_path: Path) -> None:
        model = load_scorer(wide_model_dir, seed=3)
        save_model(model, load_tokenizer(wide_model_dir), tmp_path / "reward")
        again = load_scorer(tmp_path / "reward", seed=4)
        assert torch.equal(scalar_head(again).weight, scalar_head(model).weight)
        assert torch.equal(again(IDS).logits, model(IDS).logits)

    def test_a_pad_that_is_the_end_is_replaced_in_its_config(self, wide_model_dir: Path, tmp_path: Path) -> None:
        """Transformers' classifier looks for the first pad, and would find the end instead."""
        model = load_language_model(wide_model_dir)
        model.config.pad_token_id = model.config.eos_token_id
        save_model(model, load_tokenizer(wide_model_dir), tmp_path)
        assert load_scorer(tmp_path).config.pad_token_id == 0

    def test_transformers_reads_the_same_score(self, wide_model_dir: Path, tmp_path: Path) -> None:
        """The pad id is set, so the plain classifier accepts batches and reads the last token."""
        model = load_scorer(wide_model_dir)
        save_model(model, load_tokenizer(wide_model_dir), tmp_path / "reward")
        plain: Any = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward", dtype=torch.float32)
        padded = torch.tensor([[1, 7, 9, 2, 0, 0], [1, 7, 9, 5, 6, 2]])
        attended = (padded != 0).long()
        scores = plain(padded, attention_mask=attended).logits[:, 0]
        expected = model.score(model.base_model(torch.tensor([[1, 7, 9, 2]])).last_hidden_state[:, -1])[0]
        assert_close(scores[:1], expected, atol=1e-5, rtol=0)

    def test_a_reward_model_that_starts_from_a_tuned_adapter(self, adapter_dir: Path) -> None:
        """Its trunk is the merged model's, its head is drawn from the seed like any other, its pad id is set."""
        model = load_scorer(adapter_dir, seed=3)
        hidden = load_language_model(adapter_dir).base_model(IDS).last_hidden_state
        assert_close(model.base_model(IDS).last_hidden_state, hidden, atol=1e-4, rtol=1e-4)
        torch.manual_seed(123)
        again = load_scorer(adapter_dir, seed=3)
        assert torch.equal(scalar_head(again).weight, scalar_head(model).weight)
        assert model.config.pad_token_id == 0

    def test_a_missing_directory(self, tmp_path: Path) -> None:
        assert message(lambda: load_scorer(tmp_path / "none")) == f"{tmp_path / 'none'}: no such model directory"

    def test_a_directory_without_model(self, tmp_path: Path) -> None:
        assert message(lambda: load_scorer(tmp_path)).startswith(f"{tmp_path}: no ")

    def test_bfloat16(self, wide_model_dir: Path) -> None:
        model = load_scorer(wide_model_dir, dtype="bfloat16")
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
        assert model(IDS).logits.isfinite().all()

    def test_a_language_model_has_no_score_head(self, tiny_model: Any, tiny_model_dir: Path) -> None:
        assert not is_decoder(tiny_model)
        found = message(lambda: scalar_head(tiny_model))
        assert found.startswith(f"{tiny_model_dir}: LlamaForCausalLM has no linear score head; ")

    def test_an_encoders_fresh_head_follows_the_seed_and_nothing_else(self, tmp_path: Path) -> None:
        size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
        BertModel(BertConfig(vocab_size=40, pad_token_id=0, **size)).save_pretrained(tmp_path)

        def head(seed: int) -> Tensor:
            weight: Tensor = load_scorer(tmp_path, seed=seed).classifier.weight.detach()
            return weight

        torch.manual_seed(5)
        first, drawn = head(3), torch.rand(1)
        torch.manual_seed(5)
        assert torch.equal(torch.rand(1), drawn)
        assert torch.equal(head(3), first)
        assert not torch.equal(head(4), first)


def test_a_name_that_is_neither_a_folder_nor_on_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for load in (load_tokenizer, load_language_model, load_scorer):
        with pytest.raises(ModelError, match="nofolder: no folder of this name here, and the hub"):
            load("nofolder")


def test_the_reward_file(tmp_path: Path) -> None:
    assert read_reward_file(tmp_path) == {}
    write_reward_file(tmp_path, {"gain": 0.25, "bias": -0.5})
    assert json.loads((tmp_path / "reward.json").read_text()) == {"gain": 0.25, "bias": -0.5}
    assert read_reward_file(tmp_path) == {"gain": 0.25, "bias": -0.5}
