"""Exports of a whole run: what others' loaders make of them, how large they are, and what is refused."""

from __future__ import annotations

import json
import resource
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import (
    AutoPeftModelForCausalLM,
    AutoPeftModelForSequenceClassification,
    LoraConfig,
    PeftModel,
    get_peft_model,
)
from torch import Tensor
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from tuneful.errors import ConfigError, ModelError, RunError, TunefulError
from tuneful.models.loading import load_scorer, load_tokenizer, save_model
from tuneful.pipeline.export import Exported, export, model_directory, push, weights_in
from tuneful.records import Completion, Prompt
from tuneful.rewards.learned import LearnedReward

IDS = torch.tensor([[1, 7, 9, 30, 12]])


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.eval()(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits
    return found


def bare(path: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


def copied(road: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(road, tmp_path / "run"))


def refused(kind: type[TunefulError], *arguments: Any, **options: Any) -> str:
    with pytest.raises(kind) as error:
        export(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_adapters_of_our_stages_load_in_peft(road: Path, tiny_model_dir: Path, tmp_path: Path, stage: str) -> None:
    """The merged export, read by transformers alone, against the adapter, read by peft alone."""
    adapter = road / stage / "model"
    theirs = logits(AutoPeftModelForCausalLM.from_pretrained(adapter, dtype=torch.float32))
    assert_close(theirs, logits(PeftModel.from_pretrained(bare(tiny_model_dir), adapter)))
    assert (theirs - logits(bare(tiny_model_dir))).abs().max() > 0.05
    export(road / stage, tmp_path / "merged", merge=True)
    assert_close(logits(bare(tmp_path / "merged")), theirs, atol=1e-5, rtol=1e-5)


def test_an_adapter_on_an_adapter_is_merged_with_it(road: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    """Against peft, which is handed the supervised adapter merged by its own hand."""
    middle = PeftModel.from_pretrained(bare(tiny_model_dir), road / "sft" / "model").merge_and_unload()
    theirs = logits(PeftModel.from_pretrained(middle, road / "ppo" / "model"))
    export(road, tmp_path / "merged", merge=True)
    assert_close(logits(bare(tmp_path / "merged")), theirs, atol=1e-5, rtol=1e-5)


def test_an_adapter_on_an_adapter_is_not_exported_alone(road: Path, tmp_path: Path) -> None:
    """What would happen is shown: peft loads it without a word and leaves the adapter in the middle out."""
    said = refused(ModelError, road / "ppo", tmp_path / "out")
    assert said.startswith(f"{road / 'ppo' / 'model'}: an adapter on {road / 'sft' / 'model'}, which is an adapter")
    assert said.endswith("use --merge")
    assert not (tmp_path / "out").exists()
    export(road / "ppo", tmp_path / "merged", merge=True)
    theirs = logits(AutoPeftModelForCausalLM.from_pretrained(road / "ppo" / "model", dtype=torch.float32))
    assert (theirs - logits(bare(tmp_path / "merged"))).abs().max() > 0.01


def test_a_merged_model_is_its_base_in_size(road: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    done = export(road / "dpo", tmp_path / "merged", merge=True)
    base, size = weights_in(tiny_model_dir)
    merged, merged_size = weights_in(tmp_path / "merged")
    assert merged == base
    assert merged_size == done.num_bytes
    assert abs(merged_size - size) < 1_000  # both are 20 tensors of the same shapes and a header
    assert done.num_weights == sum(p.numel() for p in bare(tiny_model_dir).parameters())
    assert (done.form, done.dtypes) == ("merged", ["float32"])
    before, after = (dict(bare(path).named_parameters()) for path in (tiny_model_dir, tmp_path / "merged"))
    assert {n: p.shape for n, p in before.items()} == {n: p.shape for n, p in after.items()}
    assert bare(tmp_path / "merged").config.tie_word_embeddings


def test_a_merged_model_brings_all_that_it_needs_and_no_path(road: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    export(road, tmp_path / "merged", merge=True)
    names = {path.name for path in (tmp_path / "merged").iterdir()}
    assert {"config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja", "README.md"} <= names
    assert not any("adapter" in name for name in names)
    template = AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template
    assert template == AutoTokenizer.from_pretrained(tiny_model_dir).chat_template
    for file in (tmp_path / "merged").iterdir():
        assert str(tiny_model_dir).encode() not in file.read_bytes(), file.name
        assert str(road).encode() not in file.read_bytes(), file.name


def test_the_precision_is_the_bases_or_the_one_asked_for(tiny_model_dir: Path, tmp_path: Path) -> None:
    """An adapter on a base of bfloat16: the sum is made in float32 and rounded once."""
    bare(tiny_model_dir).to(torch.bfloat16).save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(tiny_model_dir).save_pretrained(tmp_path / "base")
    model: Any = get_peft_model(bare(tmp_path / "base"), LoraConfig(r=2, target_modules="all-linear"))
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data.normal_(std=0.1)
    model.save_pretrained(tmp_path / "adapter")
    assert export(tmp_path / "adapter", tmp_path / "half", merge=True).dtypes == ["bfloat16"]
    assert export(tmp_path / "adapter", tmp_path / "full", merge=True, dtype="float32").dtypes == ["float32"]
    half, full = (torch.cat([p.flatten() for p in bare(tmp_path / d).parameters()]) for d in ("half", "full"))
    assert torch.equal(half, full.to(torch.bfloat16).float())
    assert_close(logits(bare(tmp_path / "full")), logits(model), atol=1e-5, rtol=1e-5)


def test_a_reward_adapter_loads_in_peft_and_merged_in_transformers(road: Path, tmp_path: Path) -> None:
    adapter = road / "reward" / "model"
    theirs = AutoPeftModelForSequenceClassification.from_pretrained(adapter, num_labels=1, dtype=torch.float32)
    export(road / "reward", tmp_path / "merged", merge=True)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    assert_close(logits(plain), logits(theirs), atol=1e-5, rtol=1e-5)
    assert logits(theirs).abs().max() > 0.01  # and not the zeros of an empty head
    before = json.loads((adapter / "reward.json").read_text())
    assert json.loads((tmp_path / "merged" / "reward.json").read_text()) == before


def test_scores_of_an_exported_reward_are_equal(road: Path, tmp_path: Path) -> None:
    """Gain × what transformers reads at the end of the chat, + bias, for both forms."""
    export(road / "reward" / "model", tmp_path / "adapter")
    export(road / "reward" / "model", tmp_path / "merged", merge=True)
    prompts, completions = [Prompt.user("hot house")] * 2, [Completion("open the door"), Completion("no")]
    scores = [LearnedReward.load(tmp_path / form)(prompts, completions) for form in ("adapter", "merged")]
    assert_close(scores[0], scores[1], atol=1e-4, rtol=1e-4)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    texts = [f"<bos><user> hot house <assistant> {c.text}<eos>" for c in completions]
    texts = [t.replace("<bos>", "<bos> ").replace("<eos>", " <eos>") for t in texts]
    batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    plain: Any = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    facts = json.loads((tmp_path / "merged" / "reward.json").read_text())
    raw = plain(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, 0]
    assert_close(scores[1], facts["gain"] * raw + facts["bias"], atol=1e-4, rtol=1e-4)
    assert abs(float(scores[1][0] - scores[1][1])) > 1e-3


def test_a_reward_model_trained_whole_is_copied(tiny_model_dir: Path, tmp_path: Path) -> None:
    save_model(load_scorer(tiny_model_dir, seed=3), load_tokenizer(tiny_model_dir), tmp_path / "reward")
    (tmp_path / "reward" / "reward.json").write_text('{"gain": 2.0, "bias": -1.0}')
    export(tmp_path / "reward", tmp_path / "out", merge=True)
    for name in ("model.safetensors", "reward.json", "config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "reward" / name).read_bytes()
    plain: Any = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert torch.equal(logits(plain), logits(load_scorer(tiny_model_dir, seed=3)))


def test_a_plain_model_is_copied_without_what_lies_beside_it(tiny_model_dir: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))
    (model / "checkpoint-7").mkdir()
    (model / "checkpoint-7" / "optimizer.pt").touch()
    (model / "training_args.bin").touch()
    (model / "README.md").write_text("another card")
    export(model, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {path.name for path in tiny_model_dir.iterdir()} | {"README.md"}
    assert "another card" not in (tmp_path / "out" / "README.md").read_text()


def test_a_run_means_its_last_policy(road: Path, tmp_path: Path) -> None:
    assert model_directory(road) == road / "ppo" / "model"
    assert model_directory(road / "reward") == road / "reward" / "model"
    run = copied(road, tmp_path)
    manifest = json.loads((run / "run.json").read_text())
    manifest["recipe"]["stages"] = manifest["recipe"]["stages"][:5]  # up to the reward model
    (run / "run.json").write_text(json.dumps(manifest))
    assert model_directory(run) == run / "sft" / "model"
    shutil.rmtree(run / "sft" / "model")
    with pytest.raises(ModelError, match="sft: has no model yet; run it to its end first"):
        model_directory(run)


def test_what_is_no_model(road: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source, said in (
        (tmp_path / "none", "no such folder"),
        (tmp_path / "empty", "no model (config.json or adapter_config.json) and no run (run.json)"),
        (road / "evaluate", "no stage of this run makes a model"),
    ):
        assert said in refused(ModelError, source, tmp_path / "out")
    assert "--dtype bfloat16 needs --merge" in refused(ConfigError, road / "dpo", tmp_path / "out", dtype="bfloat16")
    assert not (tmp_path / "out").exists()


def test_nothing_but_an_earlier_export_is_replaced(road: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("my project")
    assert "no export of ours" in refused(ConfigError, road / "dpo", tmp_path / "mine", force=True)
    assert "is a file" in refused(ConfigError, road / "dpo", tmp_path / "mine" / "README.md", force=True)
    export(road / "dpo", tmp_path / "out")
    assert "--force to replace it" in refused(ConfigError, road / "dpo", tmp_path / "out")
    (tmp_path / "out" / "stale").touch()
    export(road / "dpo", tmp_path / "out", merge=True, force=True)
    assert not (tmp_path / "out" / "stale").exists()
    assert not (tmp_path / "out" / "adapter_config.json").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_target_is_looked_at_before_the_adapter_is(tmp_path: Path) -> None:
    """What reads adapters takes seconds to import; of two mistakes, the one that is told shows which came first."""
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{")
    (tmp_path / "mine").touch()
    assert "mine: is a file" in refused(ConfigError, tmp_path / "adapter", tmp_path / "mine", merge=True)


def test_what_is_exported_is_not_written_over(road: Path, tmp_path: Path) -> None:
    run = copied(road, tmp_path)
    model = run / "dpo" / "model"
    for out in (model, model / "inside", run, run / "dpo", run / "reward" / ".." / "dpo" / "model"):
        assert "choose another --out" in refused(ConfigError, model, out, merge=True, force=True)
    base = export(model, tmp_path / "base", merge=True)
    adapter: Any = get_peft_model(bare(tmp_path / "base"), LoraConfig(r=2, target_modules="all-linear"))
    adapter.save_pretrained(tmp_path / "adapter")
    said = refused(ConfigError, tmp_path / "adapter", tmp_path / "base", merge=True, force=True)
    assert f"cannot be where {tmp_path / 'base'} is" in said
    assert weights_in(tmp_path / "base")[1] == base.num_bytes


def test_a_link_is_followed(road: Path, tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "place")
    export(road / "dpo", tmp_path / "link")
    assert (tmp_path / "place" / "adapter_config.json").exists()
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("merge", [True, False])
def test_a_full_disk_is_one_line_and_leaves_nothing(road: Path, tmp_path: Path, merge: bool) -> None:
    """No file may grow beyond 10 kB."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        said = refused(RunError, road / "dpo", tmp_path / "out", merge=merge)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert said.startswith(f"{tmp_path / 'out'}: cannot be written: ")
    assert "File too large" in said
    assert said.endswith("; free space or rights, then run again to continue")
    assert len(said) < 300  # copying tells of every file
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_export_left_is_no_hindrance(road: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container the next process may have the same number."""
    monkeypatch.setattr("os.getpid", lambda: 7)
    (tmp_path / ".out.7.part").mkdir()
    (tmp_path / ".out.7.part" / "half").touch()
    export(road / "dpo", tmp_path / "out")
    assert not (tmp_path / "out" / "half").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_tokenizer_of_an_adapter_without_one_is_the_bases(road: Path, tmp_path: Path) -> None:
    adapter = Path(shutil.copytree(road / "dpo" / "model", tmp_path / "adapter"))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (adapter / name).unlink()
    export(adapter, tmp_path / "out", merge=True)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template


class Hub:
    """Stands for the hub, which no test can reach; `refuses` what it is sent."""

    def __init__(self, refuses: bool = False) -> None:
        self.refuses = refuses
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def create_repo(self, name: str, **options: Any) -> None:
        self.calls.append((name, options))

    def upload_folder(self, **options: Any) -> Any:
        if self.refuses:
            raise ValueError("401: who are you?\nand more")
        self.calls.append((options["repo_id"], options))
        return type("Commit", (), {"commit_url": "https://hub/ada/household/commit/1"})


def test_pushing_makes_it_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the calls alone; that the hub takes them was not tried."""
    hub = Hub()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    assert push(tmp_path, "ada/household") == "https://hub/ada/household/commit/1"
    assert hub.calls == [
        ("ada/household", {"private": True, "exist_ok": True}),
        ("ada/household", {"repo_id": "ada/household", "folder_path": tmp_path}),
    ]
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: Hub(refuses=True))
    with pytest.raises(RunError, match=r"^ada/household: not uploaded: 401: who are you\?; the export is whole in "):
        push(tmp_path, "ada/household")


def test_what_is_told(road: Path, tmp_path: Path) -> None:
    done = export(road / "dpo", tmp_path / "out")
    assert isinstance(done, Exported)
    assert (done.source, done.form, done.lost) == (road / "dpo" / "model", "adapter", [])
    assert done.num_bytes == (tmp_path / "out" / "adapter_model.safetensors").stat().st_size
