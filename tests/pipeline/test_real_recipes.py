"""Recipes for real models: a step of every stage, on stand-ins of the same classes and data of the same shape.

A stand-in has the real family's configuration class, tokenizer class, special tokens, and a chat template of the same
form; only the weights are few and random. Data are a few rows with the columns of the real sets. What a recipe names is
replaced by overrides, as a user would.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftConfig, PeftModel
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaTokenizer,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaTokenizer,
    T5Config,
    T5ForConditionalGeneration,
    T5Tokenizer,
)

import tuneful.algorithms.start_up as start_up
from tuneful.data.files import read_rows
from tuneful.data.formats import read_candidates
from tuneful.data.jsonl import write_jsonl
from tuneful.errors import DataError
from tuneful.feedback.judgments import write_judgments
from tuneful.models.loading import load_tokenizer
from tuneful.pipeline.doctor.model import look_at_model
from tuneful.pipeline.doctor.reward import look_at_reward
from tuneful.pipeline.recipe import load_recipe, shipped_recipe
from tuneful.pipeline.run import run_recipe
from tuneful.records import Completion, Judgment, Prompt

ALPHABET = {character: i for i, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
SMALL |= {"num_key_value_heads": 2, "max_position_embeddings": 2048, "initializer_range": 0.05}

LLAMA_3 = (
    "<|begin_of_text|> <|end_of_text|> <|reserved_special_token_0|> <|finetune_right_pad_id|> <|start_header_id|> "
    "<|end_header_id|> <|eom_id|> <|eot_id|>"
).split()
LLAMA_3_TEMPLATE = (
    "{{- bos_token }}{%- set date = date_string if date_string is defined else strftime_now('%d %b %Y') %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + date + '\n\n<|eot_id|>' }}"
    "{%- for m in messages %}{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim }}"
    "{{- '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
LLAMA_2_TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content | trim + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)
QWEN = "<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|vision_start|> <|vision_pad|>".split()
QWEN_TEMPLATE = (
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\n' }}"
    "{%- if m.role == 'assistant' and loop.last and thinks %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}"
    "{{- m.content + '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)


def llama_3(folder: Path) -> Path:
    """As Llama-3.2-1B-Instruct: no pad token, three ends (the tokenizer's ends a turn), the date in the prompt."""
    words = Tokenizer(models.BPE(vocab=dict(ALPHABET), merges=[]))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    words.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    words.add_special_tokens([AddedToken(token, special=True) for token in LLAMA_3])
    tokenizer: Any = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>"
    )
    tokenizer.chat_template = LLAMA_3_TEMPLATE
    ends = tokenizer.convert_tokens_to_ids(["<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"])
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=ends,
        tie_word_embeddings=True,
        **SMALL,
    )
    return saved(LlamaForCausalLM(config), tokenizer, folder)


def llama_2(folder: Path) -> Path:
    """As Llama-2-7b-chat-hf: no pad token, <unk>, spaces as part of the words, no generation prompt."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    letters = [chr(code) for code in range(33, 127)]
    tokenizer: Any = LlamaTokenizer(vocab={piece: i for i, piece in enumerate([*pieces, *letters])}, merges=[])
    tokenizer.chat_template = LLAMA_2_TEMPLATE
    config = LlamaConfig(vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2, **SMALL)
    return saved(LlamaForCausalLM(config), tokenizer, folder)


def qwen_3(folder: Path, *, end: str, thinks: bool = False) -> Path:
    """As Qwen3: no begin token; base models end and pad with <|endoftext|>, chat models end with <|im_end|>."""
    tokenizer: Any = Qwen2Tokenizer(vocab=dict(ALPHABET), merges=[], eos_token=end, unk_token=None)
    tokenizer.add_tokens([AddedToken(token, special=True) for token in QWEN])
    tokenizer.add_tokens([AddedToken(token, special=False) for token in ("<think>", "</think>")])
    tokenizer.chat_template = QWEN_TEMPLATE.replace("thinks", str(thinks).lower())
    end_id = tokenizer.convert_tokens_to_ids(end)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        head_dim=16,
        bos_token_id=None,
        eos_token_id=end_id,
        tie_word_embeddings=True,
        **SMALL,
    )
    return saved(Qwen3ForCausalLM(config), tokenizer, folder)


def flan_t5(folder: Path) -> Path:
    """As FLAN-T5: pads and begins with <pad>, ends with </s>, no begin token, no chat template, logits not scaled."""
    letters = [(chr(code), -3.0) for code in range(33, 127)]
    tokenizer: Any = T5Tokenizer(
        vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *letters], extra_ids=0
    )
    shape = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}
    ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    form = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    config = T5Config(vocab_size=len(tokenizer), **shape, **ids, **form)  # type: ignore[arg-type]
    return saved(T5ForConditionalGeneration(config), tokenizer, folder)


def roberta(folder: Path, labels: tuple[str, str]) -> Path:
    """As the classifiers of hate and toxicity: byte-level BPE, <s> ... </s>, two labels."""
    words = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    vocabulary = words | {character: i + len(words) for character, i in ALPHABET.items()} | {"<mask>": len(words) + 256}
    tokenizer: Any = RobertaTokenizer(vocab=vocabulary, merges=[], model_max_length=128)
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=130,
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
    )
    return saved(RobertaForSequenceClassification(config), tokenizer, folder)


def saved(model: Any, tokenizer: Any, folder: Path) -> Path:
    """In bfloat16, as the hub has them."""
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def hh(folder: Path) -> dict[str, Path]:
    """Anthropic/hh-rlhf: transcripts of several turns."""

    def rows(first: str, count: int) -> list[dict[str, str]]:
        asked = [f"\n\nHuman: {first} {i}?\n\nAssistant: Why?\n\nHuman: So.\n\nAssistant:" for i in range(count)]
        return [{"chosen": f"{text} yes {i}", "rejected": f"{text} no no"} for i, text in enumerate(asked)]

    write_jsonl(folder / "hh.jsonl", rows("train", 40))
    write_jsonl(folder / "hh-test.jsonl", rows("test", 6))
    return {"Anthropic/hh-rlhf": folder / "hh.jsonl", "Anthropic/hh-rlhf/test": folder / "hh-test.jsonl"}


def tldr(folder: Path) -> dict[str, Path]:
    """trl-lib/tldr and trl-lib/tldr-preference: plain text, a summary begins with a space."""

    def posts(first: str, count: int) -> list[str]:
        return [f"SUBREDDIT: r/{first}\n\nTITLE: {i}\n\nPOST: I {first}\n\nTL;DR:" for i in range(count)]

    demonstrated = {"tldr": posts("post", 40), "tldr-test": posts("late", 6)}
    for name, prompts in demonstrated.items():
        write_jsonl(folder / f"{name}.jsonl", ({"prompt": p, "completion": " I did."} for p in prompts))
    compared = {"pairs": posts("post", 40), "pairs-valid": posts("other", 6)}
    for name, prompts in compared.items():
        write_jsonl(folder / f"{name}.jsonl", ({"prompt": p, "chosen": " I did.", "rejected": " He"} for p in prompts))
    return {
        "trl-lib/tldr": folder / "tldr.jsonl",
        "trl-lib/tldr/test": folder / "tldr-test.jsonl",
        "trl-lib/tldr-preference": folder / "pairs.jsonl",
        "trl-lib/tldr-preference/validation": folder / "pairs-valid.jsonl",
    }


def dialogsum(folder: Path) -> dict[str, Path]:
    """knkarthick/dialogsum and the two classifiers that judge its summaries."""
    for name, first, count in (("dialogues", "Hi", 40), ("dialogues-test", "Bye", 6)):
        rows = (
            {
                "id": f"{name}_{i}",
                "dialogue": f"#Person1#: {first} {i}!\n#Person2#: No.",
                "summary": "They talk.",
                "topic": "t",
            }
            for i in range(count)
        )
        write_jsonl(folder / f"{name}.jsonl", rows)
    return {
        "knkarthick/dialogsum": folder / "dialogues.jsonl",
        "knkarthick/dialogsum/test": folder / "dialogues-test.jsonl",
        "facebook/roberta-hate-speech-dynabench-r4-target": roberta(folder / "hate", ("nothate", "hate")),
        "s-nlp/roberta_toxicity_classifier": roberta(folder / "toxicity", ("neutral", "toxic")),
    }


def own(folder: Path) -> dict[str, Path]:
    """The files instructgpt.toml asks for, but for the judgments."""
    asked = [f"What is {i}?" for i in range(60)]
    write_jsonl(folder / "demonstrations.jsonl", ({"prompt": f"Say {p}", "completion": " A number."} for p in asked))
    write_jsonl(folder / "prompts.jsonl", ({"prompt": p} for p in asked))
    return {f"{name}.jsonl": folder / f"{name}.jsonl" for name in ("demonstrations", "prompts", "judgments")}


FEW = {
    "sft": "epochs=1 demonstrations_per_step=64 max_tokens=400",
    "generate": "max_new_tokens=4 limit=4",
    "consensus": "",
    "reward": "max_new_tokens=4 normalise_samples=16 optimization.learning_rate=0.01",
    "ppo": "num_steps=1 prompts_per_step=8 epochs=1 minibatches=2 max_new_tokens=4 evaluate_prompts=2 save_every=1",
    "dpo": "optimization.warmup_steps=1",
    "evaluate": "max_new_tokens=4 limit=2",
}
"""One step of each kind of stage. No batch here is smaller than the data, so one step is one epoch."""


def overrides(name: str, stands_for: dict[str, Path]) -> list[str]:
    """What replaces all that the shipped recipe `name` names, and makes it small."""
    tables = tomllib.loads(shipped_recipe(name).read_text(encoding="utf-8"))
    known = {text: str(path) for text, path in stands_for.items()}
    found = [f"held_out={[known[text] for text in tables['held_out']]}"] if "held_out" in tables else []
    share = 0.2 if tables["splits"]["rl"] else 0.0  # few rows: each split that is used gets some
    found += [f"splits.dev={share}", f"splits.reward={1 - 3 * share}", f"splits.rl={share}", f"splits.test={share}"]
    for stage in tables["stage"]:
        kind = stage.get("algorithm") or stage["do"]
        flat = stage | {f"{name}.{key}": v for name, t in stage.items() if isinstance(t, dict) for key, v in t.items()}
        named = {setting: known[text] for setting, text in flat.items() if isinstance(text, str) and text in known}
        assert not any(isinstance(v, str) and "/" in v and v not in known for v in flat.values()), "a hub id is left"
        found += [f"{stage['name']}.{setting}={path}" for setting, path in named.items()]
        found += [f"{stage['name']}.{assignment}" for assignment in FEW[kind].split()]
    return found


CASES: dict[str, tuple[str, str, Callable[[Path], Path], Callable[[Path], dict[str, Path]]]] = {
    "llama 3": ("llama_hh", "meta-llama/Llama-3.2-1B-Instruct", llama_3, hh),
    "llama 2": ("llama_hh", "meta-llama/Llama-3.2-1B-Instruct", llama_2, hh),
    "qwen base": ("qwen_tldr", "Qwen/Qwen3-1.7B-Base", lambda f: qwen_3(f, end="<|endoftext|>"), tldr),
    "qwen": ("qwen_hh_dpo", "Qwen/Qwen3-4B-Instruct-2507", lambda f: qwen_3(f, end="<|im_end|>", thinks=True), hh),
    "flan": ("flan_t5_detox", "google/flan-t5-base", flan_t5, dialogsum),
    "own prompts": ("instructgpt", "Qwen/Qwen3-1.7B-Base", lambda f: qwen_3(f, end="<|endoftext|>"), own),
}
"""Recipe, the model it names, and what stands for model and data."""


@pytest.fixture(autouse=True)
def few_rollouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_up, "NUM_ROLLOUTS", 16)


def test_every_recipe_for_a_real_model_is_run_here() -> None:
    shipped = {path.stem for path in (Path(__file__).parents[2] / "recipes").glob("*.toml")}
    of_small_worlds = {name for name in shipped if name.startswith(("demo", "hh_small", "dialogsum_small"))}
    assert {name for name, *_ in CASES.values()} == shipped - of_small_worlds


def test_the_small_form_of_flan_t5_detox_differs_in_names_and_numbers_only() -> None:
    names = {"held_out", "model", "demonstrations", "prompts", "classifier", "label"}

    def form(table: object, setting: str = "") -> object:
        """Every setting: of numbers the kind, of names of files, models and labels that there is one, else the word."""
        if isinstance(table, dict):
            return {key: form(value, key) for key, value in table.items()}
        if isinstance(table, list):
            return [form(value, setting) for value in table]
        if isinstance(table, str):
            return str if setting in names and not table.startswith("@") else table
        return float if isinstance(table, int | float) else table

    small, real = (tomllib.loads(shipped_recipe(name).read_text()) for name in ("dialogsum_small", "flan_t5_detox"))
    assert form(small) == form(real)
    for name, words in (("dialogsum_small", "hate"), ("flan_t5_detox", "toxic")):
        stages = {stage.name: stage.inputs for stage in load_recipe(shipped_recipe(name)).stages}
        assert (
            stages["ppo"].model == stages["evaluate"].before == "@sft"
        )  # the reference is what the policy starts from
        assert stages["evaluate"].toxicity.classifier != stages["ppo"].reward.classifier
        assert stages["evaluate"].toxicity.label == words


@pytest.mark.parametrize("case", CASES)
def test_a_step_of_every_stage(case: str, tmp_path: Path) -> None:
    name, hub_id, build, data = CASES[case]
    if name == "qwen_hh_dpo":
        pytest.importorskip("bitsandbytes", reason='"nf4" needs bitsandbytes')
    model = build(tmp_path / "model")
    recipe = load_recipe(shipped_recipe(name), overrides(name, {hub_id: model} | data(tmp_path)))
    out = tmp_path / "run"
    if name == "instructgpt":
        with pytest.raises(DataError, match=r"judgments.jsonl"):
            run_recipe(recipe, out)
        judge(out / "samples" / "completions.jsonl", tmp_path / "judgments.jsonl")
    run_recipe(recipe, out)

    kinds = {stage.name: stage.kind for stage in recipe.stages}
    assert all((out / stage / "run.json").exists() for stage in kinds)
    for stage, kind in kinds.items():
        if kind in ("sft", "reward", "ppo", "dpo"):
            steps = [row.fields for row in read_rows(out / stage / "metrics.jsonl")]
            assert [row["step"] for row in steps if row["kind"] == "train"] == [1], stage
            opens_elsewhere(out / stage / "model", classifier=kind == "reward", seq2seq=name == "flan_t5_detox")
    last = next(stage for stage, kind in reversed(kinds.items()) if kind in ("ppo", "dpo"))
    findings = [*look_at_model(str(out / last / "model"), [Prompt.user("Hi")])]
    if "reward" in kinds:
        answers = (Completion("Yes."), Completion("No, not at all, I am afraid."))
        findings += look_at_reward(str(out / "reward" / "model"), [(Prompt.user("Hi"), c) for c in answers])
    assert [finding for finding in findings if finding.status == "fail"] == []


def judge(completions: Path, judgments: Path) -> None:
    """Two people who like the same answers best."""
    write_judgments(
        judgments,
        (
            Judgment(
                id=f"{rater}-{i}",
                item=str(i),
                prompt=item.prompt.id,
                completions=tuple(c.id for c in item.completions),
                rater=rater,
                ranks=(1, 2, 3, 4),
            )
            for i, item in enumerate(read_candidates(completions))
            for rater in ("ada", "ben")
        ),
    )


def opens_elsewhere(model: Path, *, classifier: bool, seq2seq: bool) -> None:
    """Transformers and PEFT open what a stage left, and its tokenizer pads with another token than its end."""
    tokenizer = load_tokenizer(model)
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
    chain = [model]
    while (chain[-1] / "adapter_config.json").exists():
        chain.append(Path(PeftConfig.from_pretrained(chain[-1]).base_model_name_or_path))
    kind: Any = AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM
    base: Any = kind.from_pretrained(chain[-1], dtype=torch.float32)
    for adapter in reversed(chain[1 if classifier else 0 : -1]):
        base = PeftModel.from_pretrained(base, adapter).merge_and_unload()
    ids = {"input_ids": torch.tensor([[5, 6, 7]])} | ({"labels": torch.tensor([[5, 1]])} if seq2seq else {})
    assert base(**ids).logits.isfinite().all()
    if classifier:
        scorer: Any = AutoModelForSequenceClassification.from_pretrained(chain[-1], num_labels=1, dtype=torch.float32)
        scorer = PeftModel.from_pretrained(scorer, model)
        assert scorer(torch.tensor([[5, 6, 7]])).logits.shape == (1, 1)
