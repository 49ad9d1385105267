"""Models and preferences between this package and TRL, both ways: what one side saves, the other loads and uses."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor
from torch.testing import assert_close

from tuneful.data.formats import detect, read_comparisons
from tuneful.data.jsonl import write_jsonl
from tuneful.data.preferences import comparison_row
from tuneful.errors import RewardError
from tuneful.models.adapters import LoRA
from tuneful.models.loading import load_language_model, load_scorer, load_tokenizer
from tuneful.models.roles import policy_roles
from tuneful.records import Comparison, Prompt
from tuneful.rewards.learned import LearnedReward

datasets = pytest.importorskip("datasets")

IDS = torch.tensor([[1, 7, 9, 30, 12]])

# TRL and what it imports warn about themselves; that is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")

CHAT = [
    Comparison(Prompt.user("hot house"), "open the door", "no", p=0.8, weight=0.5, group="a"),
    Comparison(Prompt.user("cold tea"), "get hot water", "", p=0.7),
]
PLAIN = [  # TRL puts nothing between text and text, so the prompts end with a space
    Comparison(Prompt("hot house "), "open the door", "no", p=0.8, weight=0.5, group="a"),
    Comparison(Prompt("cold tea "), "get hot water", "", p=0.7),
]
READ_AS_CHAT = {
    "<bos> <user> hot house <assistant> open the door <eos>",
    "<bos> <user> hot house <assistant> no <eos>",
    "<bos> <user> cold tea <assistant> get hot water <eos>",
    "<bos> <user> cold tea <assistant> <eos>",
}
READ_AS_TEXT = {text.replace("<bos> <user> ", "").replace("<assistant> ", "") for text in READ_AS_CHAT}


def one_step(
    trl: ModuleType, name: str, model: Path, rows: Any, out: Path, lora: LoraConfig | None = None
) -> tuple[Any, Tensor]:
    """TRL's trainer `name` after one step, saved at `out`, and the logits of its model at that moment."""
    arguments = getattr(trl, f"{name}Config")(
        output_dir=str(out),
        use_cpu=True,
        bf16=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        max_steps=1,
        per_device_train_batch_size=len(rows),
        learning_rate=0.02,
        gradient_checkpointing=False,
        max_length=64,
    )
    trainer = getattr(trl, f"{name}Trainer")(
        model=str(model), args=arguments, train_dataset=rows, processing_class=load_tokenizer(model), peft_config=lora
    )
    trainer.train()
    trainer.save_model(str(out))
    with torch.no_grad():
        return trainer, trainer.model.eval()(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits


def lora(**parts: Any) -> LoraConfig:
    # B starts from zero, so that one step moves logits by little; a large alpha makes up for it.
    return LoraConfig(r=2, lora_alpha=64, target_modules="all-linear", **parts)


def preferences(tmp_path: Path, comparisons: list[Comparison]) -> Any:
    """What `datasets` makes of the file that we write."""
    file = tmp_path / "pairs.jsonl"
    write_jsonl(file, map(comparison_row, comparisons), force=True)
    return datasets.load_dataset("json", data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))


@pytest.mark.parametrize("adapter", [False, True], ids=["whole", "adapter"])
@pytest.mark.parametrize("name", ["SFT", "DPO"])
def test_policies_of_trl_load_here(
    trl: ModuleType, tiny_model_dir: Path, tmp_path: Path, name: str, adapter: bool
) -> None:
    rows = datasets.Dataset.from_list([comparison_row(c) for c in CHAT])
    if name == "SFT":
        rows = datasets.Dataset.from_list([{"messages": row["prompt"] + row["chosen"]} for row in rows])
    parts = lora(task_type="CAUSAL_LM") if adapter else None
    _, theirs = one_step(trl, name, tiny_model_dir, rows, tmp_path / "out", parts)
    ours = load_language_model(tmp_path / "out")
    assert (theirs - load_language_model(tiny_model_dir)(IDS).logits).abs().max() > 1e-3
    assert_close(ours(IDS).logits, theirs, atol=1e-5, rtol=1e-5)
    assert load_tokenizer(tmp_path / "out").chat_template == load_tokenizer(tiny_model_dir).chat_template
    policy = policy_roles(tmp_path / "out", lora=LoRA(rank=2)).policy
    assert policy is not None
    policy.activate()
    assert_close(policy.model(IDS).logits, theirs, atol=1e-5, rtol=1e-5)  # where training on top of it begins


@pytest.mark.parametrize("adapter", [False, True], ids=["whole", "adapter"])
def test_reward_models_of_trl_load_here(trl: ModuleType, tiny_model_dir: Path, tmp_path: Path, adapter: bool) -> None:
    rows = datasets.Dataset.from_list([comparison_row(c) for c in CHAT])
    parts = lora(task_type="SEQ_CLS", modules_to_save=["score"]) if adapter else None
    _, theirs = one_step(trl, "Reward", tiny_model_dir, rows, tmp_path / "out", parts)
    assert_close(load_scorer(tmp_path / "out")(IDS).logits, theirs, atol=1e-5, rtol=1e-5)
    reward = LearnedReward.load(tmp_path / "out")
    assert (reward.gain, reward.bias) == (1.0, 0.0)


def test_a_reward_adapter_that_was_saved_without_its_head_is_refused(
    trl: ModuleType, tiny_model_dir: Path, tmp_path: Path
) -> None:
    """TRL saves the head only when `modules_to_save` names it; any score would be that of a random one."""
    rows = datasets.Dataset.from_list([comparison_row(c) for c in CHAT])
    one_step(trl, "Reward", tiny_model_dir, rows, tmp_path / "out", lora())
    with pytest.raises(RewardError, match="a language model, not a reward model"):
        LearnedReward.load(tmp_path / "out")


@pytest.mark.parametrize("comparisons", [CHAT, PLAIN], ids=["conversation", "text"])
@pytest.mark.parametrize("name", ["DPO", "Reward"])
def test_trl_trains_on_the_preferences_that_we_write(
    trl: ModuleType, tiny_model_dir: Path, tmp_path: Path, name: str, comparisons: list[Comparison]
) -> None:
    """Also where an answer is empty; the batch of its step is what the rows say."""
    rows = preferences(tmp_path, comparisons)
    assert rows["p"] == [0.8, 0.7]
    trainer, _ = one_step(trl, name, tiny_model_dir, rows, tmp_path / "out")
    [batch] = list(trainer.get_train_dataloader())
    tokenizer = load_tokenizer(tiny_model_dir)
    seen = {
        tokenizer.decode(ids[mask.bool()])
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    }
    assert seen == (READ_AS_CHAT if comparisons is CHAT else READ_AS_TEXT)


@pytest.mark.parametrize("comparisons", [CHAT, PLAIN], ids=["conversation", "text"])
def test_preferences_that_datasets_saved_load_here(tmp_path: Path, comparisons: list[Comparison]) -> None:
    """Also where a column was filled with null because some rows lack it."""
    rows = preferences(tmp_path, comparisons)
    rows.to_json(tmp_path / "again.jsonl")
    assert detect(tmp_path / "again.jsonl") == "preferences"
    assert read_comparisons(tmp_path / "again.jsonl") == comparisons


def test_preferences_as_trl_documents_them_load_here(trl: ModuleType, tmp_path: Path) -> None:
    """Prompt, chosen and rejected alone, as TRL's own helpers leave them: an implicit prompt made explicit."""
    talk = [{"role": "user", "content": "hot house"}]
    implicit = {side: [*talk, {"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
    rows = datasets.Dataset.from_list([implicit]).map(trl.extract_prompt)
    rows.to_json(tmp_path / "rows.jsonl")
    assert read_comparisons(tmp_path / "rows.jsonl") == [Comparison(Prompt.user("hot house"), "chosen", "rejected")]
