"""Settings of other tools: numbers worked by hand, recipes that load, and no setting that goes missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.pipeline.recipes import WORDS
from tuneful.algorithms.kl_control import AdaptiveKL
from tuneful.data.jsonl import write_jsonl
from tuneful.errors import ConfigError
from tuneful.functional.value_losses import clipped_value_loss
from tuneful.pipeline.recipe import Stage, load_recipe
from tuneful.pipeline.run import run_recipe
from tuneful.pipeline.translate.file import translate
from tuneful.pipeline.translate.translation import Translation, flatten
from tuneful.rewards.classifier import Classifier

NLPO = """
tokenizer: {model_name: small, padding_side: left, truncation_side: left, pad_token_as_eos_token: True}
reward_fn: {id: learned_reward, args: {model_name: mood, label_ix: 1, include_prompt_for_eval: False}}
datapool: {id: films, args: {}}
env: {n_envs: 6, args: {max_prompt_length: 32, max_episode_length: 40, terminate_on_eos: True}}
alg:
  id: nlpo
  args: {n_steps: 130, batch_size: 60, verbose: 1, learning_rate: 2e-5, n_epochs: 3}
  kl_div: {coeff: 0.2, target_kl: 0.05}
  policy:
    id: maskable_causal_lm_actor_critic_policy
    args:
      model_name: small
      apply_model_parallel: True
      top_mask: 0.8
      min_tokens_to_keep: 50
      mask_type: learned_top_p
      target_update_iterations: 4
      generation_kwargs: {do_sample: True, top_k: 0, min_length: 12, max_new_tokens: 36}
train_evaluation: {eval_batch_size: 64, n_iters: 30, eval_every: 5, save_every: 2, metrics: [{id: diversity}]}
"""

PPO_OF_TRL = """
sft_model_path: small
reward_model_path: judge
per_device_train_batch_size: 16
gradient_accumulation_steps: 4
num_ppo_epochs: 3
num_mini_batches: 1
total_episodes: 10000
kl_coef: 0.1
stop_token: eos
learning_rate: 1e-6
warmup_steps: 5
"""

GRPO = """
model_name_or_path: small
reward_model_name_or_path: judge
dataset_name: some/posts
per_device_train_batch_size: 4
gradient_accumulation_steps: 8
steps_per_generation: 16
num_generations: 8
num_iterations: 2
beta: 0.04
loss_type: dr_grpo
scale_rewards: false
max_steps: 120
warmup_steps: 0.1
lr_scheduler_type: cosine
"""

DPO = """
model_name_or_path: small
dataset_name: some/pairs
dataset_train_split: train_prefs
per_device_train_batch_size: 2
gradient_accumulation_steps: 16
num_train_epochs: 2
loss_type: [robust]
label_smoothing: 0.1
beta: 0.2
warmup_ratio: 0.1
use_peft: true
lora_r: 4
lora_alpha: 8
lora_dropout: 0.0
lora_target_modules: all-linear
load_in_4bit: true
max_grad_norm: 0
"""

SFT = (
    "{packing: false, max_length: 512, per_device_train_batch_size: 4, num_train_epochs: 1, completion_only_loss: true}"
)
REWARD = "{center_rewards_coefficient: 0.01, max_length: null, per_device_train_batch_size: 8, num_train_epochs: 1}"
RLOO = "{reward_clip_range: [-5, 5], normalize_advantages: false, num_generations: 4, per_device_train_batch_size: 8}"
SHAPES = {"nlpo": NLPO, "ppo": PPO_OF_TRL, "grpo": GRPO, "dpo": DPO, "sft": SFT, "reward": REWARD, "rloo": RLOO}


def rl4lms(algorithm: str = "nlpo", **changes: Any) -> dict[str, Any]:
    """The file above for another algorithm, without what that has not; changes by dotted names, None takes away."""
    tree: dict[str, Any] = yaml.safe_load(NLPO)
    tree["alg"]["id"] = algorithm
    if algorithm != "nlpo":
        tree["alg"]["policy"]["id"] = "causal_lm_actor_critic_policy"
        for name in ("top_mask", "min_tokens_to_keep", "mask_type", "target_update_iterations"):
            del tree["alg"]["policy"]["args"][name]
    for name in {"a2c": ("batch_size", "n_epochs"), "trpo": ("batch_size", "n_epochs")}.get(algorithm, ()):
        del tree["alg"]["args"][name]
    for name, value in changes.items():
        *above, last = name.split("__")
        node = tree
        for one in above:
            node = node[one]
        node[last] = value
        if value is None:
            del node[last]
    return tree


def read(tmp_path: Path, settings: str | dict[str, Any], **options: Any) -> tuple[Translation, Stage, Any]:
    """The translation of a file with these settings, the one stage of its recipe, and the recipe."""
    path = tmp_path / "settings.yaml"
    path.write_text(settings if isinstance(settings, str) else yaml.safe_dump(settings), encoding="utf-8")
    found = translate(path, **options)
    written = tmp_path / "recipe.toml"
    written.write_text(found.recipe("a comment"), encoding="utf-8")
    recipe = load_recipe(written)
    [stage] = recipe.stages
    return found, stage, recipe


def lost(found: Translation, group: str) -> set[str]:
    return {one.name for one in found.lost if one.group == group}


def test_nlpo_of_rl4lms_by_hand(tmp_path: Path) -> None:
    """6 x 130 = 780 tokens, 40 to an answer: 19.5, and so 20 answers; 780 / 60 = 13 minibatches."""
    found, stage, recipe = read(tmp_path, NLPO)
    config = stage.config
    assert stage.kind == "nlpo"
    assert (config.num_steps, config.prompts_per_step, config.samples_per_prompt) == (30, 20, 1)
    assert (config.minibatches, config.epochs) == (13, 3)
    assert (config.max_new_tokens, config.max_prompt_tokens) == (36, 32)
    assert (config.kl_coef, config.kl_target, config.kl_horizon) == (0.2, 2.0, 200)
    assert (config.top_p, config.min_tokens, config.mask_every) == (0.8, 50, 4)
    assert (config.gamma, config.lam, config.clip, config.value_clip) == (0.99, 0.95, 0.2, 0.0)
    assert (config.value_coef, config.entropy_coef, config.max_grad_norm) == (1.0, 0.0, 0.5)
    assert (config.missing_eos_penalty, config.temperature, config.whiten_advantages) == (0.0, 1.0, True)
    optimizer = config.optimization
    assert (optimizer.learning_rate, optimizer.schedule) == (2e-5, "constant")  # which YAML takes for a text
    assert (optimizer.weight_decay, optimizer.adam_eps, optimizer.warmup_steps) == (1e-6, 1e-8, 0)
    assert (stage.inputs.evaluate_every, stage.inputs.save_every, stage.inputs.value) == (5, 2, "model")
    assert stage.inputs.reward == Classifier(classifier="mood", label=1, output="probability")
    assert recipe.splits == {"reward": 0.0, "rl": 0.95, "dev": 0.05, "test": 0.0}
    assert lost(found, "learned") == {"alg.policy.args.generation_kwargs.min_length"}
    assert lost(found, "unknown") == set()
    assert [one.ours for one in found.counterparts if one.pending] == ["prompts"]


def test_the_controller_moves_as_theirs(tmp_path: Path) -> None:
    """12 % above their target of .05 nats a token, theirs multiplies by 1 + .1 x .12; 60 % above by 1 + .1 x .2."""
    _, stage, _ = read(tmp_path, NLPO)
    for per_token, factor in ((0.056, 1.012), (0.08, 1.02), (0.01, 0.98)):
        controller = stage.config.kl_controller()
        assert isinstance(controller, AdaptiveKL)
        controller.update(40 * per_token, stage.config.completions_per_step)
        assert controller.coef == pytest.approx(0.2 * factor)


def test_the_value_loss_weighs_as_theirs(tmp_path: Path) -> None:
    """Errors of 1 and 3: a mean square of 5, of which half counts by stable-baselines3's vf_coef of .5."""
    _, stage, _ = read(tmp_path, rl4lms("ppo"))
    values, returns = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 3.0]])
    mask = torch.ones(1, 2, dtype=torch.bool)
    clip = stage.config.value_clip or None
    ours = clipped_value_loss(values, values - 9, returns, mask, clip=clip, num_tokens=2).loss
    assert float(stage.config.value_coef * ours) == pytest.approx(0.5 * 5)


def test_a2c_keeps_the_weight_of_values_and_tells_of_rmsprop(tmp_path: Path) -> None:
    found, stage, _ = read(tmp_path, rl4lms("a2c"))
    assert stage.kind == "a2c"
    assert (stage.config.value_coef, stage.config.lam, stage.config.gamma) == (0.5, 1.0, 0.99)
    assert "alg.args.use_rms_prop" in lost(found, "learned")
    plain, _, _ = read(tmp_path, rl4lms("a2c", alg__args__use_rms_prop=False))
    assert "alg.args.use_rms_prop" not in lost(plain, "learned")


def test_trpo_of_rl4lms(tmp_path: Path) -> None:
    found, stage, _ = read(tmp_path, rl4lms("trpo", alg__args__target_kl=0.02, alg__args__sub_sampling_factor=4))
    config = stage.config
    assert (config.max_kl, config.damping, config.cg_iterations, config.tries) == (0.02, 0.1, 15, 10)
    assert (config.value_epochs, config.fisher_share, config.max_grad_norm) == (10, 0.25, 1e9)
    assert stage.inputs.lora is not None
    assert "alg.id" in lost(found, "learned")


def test_what_a_silent_file_of_rl4lms_inherits(tmp_path: Path) -> None:
    """2048 tokens of one environment, 512 to an answer, 64 to a minibatch: 4 answers, in as many minibatches."""
    silent = {
        "alg": {"id": "ppo", "kl_div": {"coeff": 0.1}, "policy": {"id": "x", "args": {"model_name": "small"}}},
        "reward_fn": {"id": "rouge", "args": {"rouge_type": "rouge1"}},
    }
    found, stage, _ = read(tmp_path, silent)
    config = stage.config
    assert (config.prompts_per_step, config.minibatches, config.epochs) == (4, 4, 10)
    assert (config.optimization.learning_rate, config.kl_target, config.kl_horizon) == (3e-4, None, 10_000)
    generation = "alg.policy.args.generation_kwargs"
    assert {f"{generation}.do_sample", "env.args.terminate_on_eos"} <= lost(found, "learned")
    sampled = silent | {
        "alg": silent["alg"] | {"policy": {"args": {"model_name": "x", "generation_kwargs": {"do_sample": True}}}}
    }
    assert f"{generation}.top_k" in lost(read(tmp_path, sampled)[0], "learned")  # transformers' 50


def test_reward_of_ones_own_is_named_and_told(tmp_path: Path) -> None:
    changed = rl4lms("ppo", reward_fn={"id": "rouge", "args": {"rouge_type": "rouge1"}})
    found, stage, _ = read(tmp_path, changed)
    assert stage.inputs.reward == "./reward.py:rouge"
    [told] = [one for one in found.counterparts if one.ours == "reward"]
    assert told.pending
    assert '{"rouge_type": "rouge1"}' in told.note
    assert told.note in found.recipe()


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"env__args__prompt_truncation_side": "right"}, "env.args.prompt_truncation_side"),
        ({"alg__policy__args__generation_kwargs__top_k": 20}, "alg.policy.args.generation_kwargs.top_k"),
        ({"alg__policy__args__generation_kwargs__top_p": 0.9}, "alg.policy.args.generation_kwargs.top_p"),
        ({"alg__policy__args__mask_type": "learned_top_k"}, "alg.policy.args.mask_type"),
        ({"alg__policy__id": "maskable_seq2seq_lm_actor_critic_policy"}, "alg.policy.id"),
        ({"alg__kl_div__norm_reward": True}, "alg.kl_div.norm_reward"),
        ({"tokenizer__model_name": "other"}, "tokenizer.model_name"),
    ],
)
def test_what_rl4lms_does_and_a_recipe_cannot(tmp_path: Path, changes: dict[str, Any], name: str) -> None:
    before, _, _ = read(tmp_path, NLPO)
    found, _, _ = read(tmp_path, rl4lms(**changes))
    assert lost(found, "learned") - lost(before, "learned") >= {name}


def test_other_values_of_rl4lms(tmp_path: Path) -> None:
    """A stop at 1.5 times target_kl, a clip of values, a seed; a coefficient of 0 is not steered."""
    changes = {"alg__args__target_kl": 0.02, "alg__args__clip_range_vf": 0.3, "alg__args__seed": 7}
    _, stage, recipe = read(tmp_path, rl4lms("ppo", **changes))
    assert (stage.config.max_update_kl, stage.config.value_clip) == (pytest.approx(0.03), 0.3)
    assert recipe.seed == 7
    _, free, _ = read(tmp_path, rl4lms(alg__kl_div__coeff=0.0))
    assert (free.config.kl_coef, free.config.kl_target) == (0.0, None)


def test_supervised_of_rl4lms(tmp_path: Path) -> None:
    training = {"per_device_train_batch_size": 8, "num_train_epochs": 10, "lr_scheduler_type": "constant"}
    training |= {"learning_rate": 1e-5, "weight_decay": 0.01, "logging_steps": 200, "save_total_limit": 1}
    tree = {
        "tokenizer": {"model_name": "small"},
        "datapool": {"id": "films"},
        "alg": {"id": "supervised", "training_args": training, "model_type": "causal", "model_name": "small"}
        | {"generation_kwargs": {"do_sample": True}},
        "train_evaluation": {"eval_batch_size": 8},
    }
    found, stage, _ = read(tmp_path, tree, devices=2)
    assert (stage.kind, stage.config.demonstrations_per_step, stage.config.epochs) == ("sft", 16, 10)
    optimizer = stage.config.optimization
    assert (optimizer.learning_rate, optimizer.schedule, optimizer.weight_decay) == (1e-5, "constant", 0.01)
    assert lost(found, "learned") == {"alg.model_type"}
    assert lost(found, "unknown") == set()
    tree["alg"]["model_type"], tree["tokenizer"]["truncation_side"] = "seq2seq", "right"
    assert lost(read(tmp_path, tree)[0], "learned") == {"tokenizer.truncation_side"}


def test_ppo_of_trl_by_hand(tmp_path: Path) -> None:
    """16 x 4 = 64 episodes a step, 10000 / 64 = 156.25; a warm-up of 5 iterations is 5 x 3 optimizer steps."""
    found, stage, recipe = read(tmp_path, PPO_OF_TRL)
    config = stage.config
    assert (config.prompts_per_step, config.num_steps, config.epochs, config.minibatches) == (64, 157, 3, 1)
    assert (config.optimization.warmup_steps, config.optimization.adam_eps) == (15, 1e-8)
    assert (config.max_new_tokens, config.temperature, config.kl_coef) == (53, 0.7, 0.1)
    assert (config.clip, config.value_clip, config.value_coef, config.lam) == (0.2, 0.2, 0.1, 0.95)
    assert (config.missing_eos_penalty, config.max_grad_norm) == (0.0, 1e9)
    assert (stage.inputs.model, stage.inputs.reward, stage.inputs.value_from) == ("small", "judge", "judge")
    assert recipe.seed == 42
    assert lost(found, "learned") == set()
    parts, _, _ = read(tmp_path, PPO_OF_TRL.replace("num_mini_batches: 1", "num_mini_batches: 2"))
    [note] = [one.note for one in parts.counterparts if one.ours == "minibatches"]
    assert "it steps once an epoch" in note
    without, _, _ = read(tmp_path, PPO_OF_TRL.replace("stop_token: eos", "kl_estimator: k3"))
    assert lost(without, "learned") == {"stop_token", "kl_estimator"}


def test_grpo_of_trl_by_hand(tmp_path: Path) -> None:
    """4 x 2 devices x 16 = 128 answers of 16 prompts; 16 / 8 = 2 minibatches in 2 passes: 120 / 4 = 30 steps."""
    _, stage, _ = read(tmp_path, GRPO, devices=2)
    config = stage.config
    assert (config.prompts_per_step, config.samples_per_prompt) == (16, 8)
    assert (config.minibatches, config.epochs, config.num_steps) == (2, 2, 30)
    assert config.optimization.warmup_steps == 12  # a tenth of 120
    assert (config.averaging, config.spread, config.kl_coef, config.kl_estimator) == ("constant", "none", 0.04, "k2")
    filled = yaml.safe_load(GRPO) | {"generation_batch_size": 128}  # as the class leaves it: it knew the devices
    again, stage, _ = read(tmp_path, filled)
    assert stage.config == config
    [note] = [one.note for one in again.counterparts if one.ours == "prompts_per_step"]
    assert note.endswith("on 2 devices")
    exact, _, _ = read(tmp_path, GRPO + "use_bias_correction_kl: false\n", devices=2)
    assert {one.ours: one.value for one in exact.counterparts}["kl_estimator"] == "k3"


@pytest.mark.parametrize(
    ("loss", "averaging"), [("grpo", "completions"), ("dapo", "tokens"), ("bnpo", "tokens"), ("dr_grpo", "constant")]
)
def test_losses_of_grpo(tmp_path: Path, loss: str, averaging: str) -> None:
    _, stage, _ = read(tmp_path, GRPO.replace("dr_grpo", loss), devices=2)
    assert stage.config.averaging == averaging


def test_what_grpo_of_trl_does_and_a_recipe_cannot(tmp_path: Path) -> None:
    more = "epsilon_high: 0.28\nentropy_coef: 0.01\ntop_p: 0.9\nmask_truncated_completions: true\n"
    found, _, _ = read(tmp_path, GRPO.replace("dr_grpo", "cispo").replace("false", "batch") + more, devices=2)
    names = {"epsilon_high", "entropy_coef", "top_p", "mask_truncated_completions", "loss_type", "scale_rewards"}
    assert lost(found, "learned") == names


def test_rewards_of_grpo_are_weighed(tmp_path: Path) -> None:
    given = GRPO.replace(
        "reward_model_name_or_path: judge", "reward_funcs: [lib.exact, polite]\nreward_weights: [1, 2]"
    )
    _, stage, _ = read(tmp_path, given, devices=2)
    parts = [(part.reward, part.weight) for part in stage.inputs.reward]
    assert parts == [("./reward.py:exact", 1.0), ("./reward.py:polite", 2.0)]


def test_dpo_of_trl_by_hand(tmp_path: Path) -> None:
    """2 x 16 x 4 = 128 pairs; two passes over 10000 rows are 156.25 and so 157 steps, a tenth of them 16."""
    found, stage, recipe = read(tmp_path, DPO, devices=4, rows=10_000)
    config = stage.config
    assert (config.pairs_per_step, config.epochs, config.beta) == (128, 2, 0.2)
    assert (config.loss, config.label_noise, config.max_tokens) == ("robust", 0.1, 1024)
    assert (config.optimization.warmup_steps, config.optimization.learning_rate) == (16, 1e-6)
    assert config.max_grad_norm == 1e9  # 0 is no clipping in transformers
    assert (stage.inputs.lora.rank, stage.inputs.lora.alpha, stage.inputs.base_dtype) == (4, 8, "nf4")
    assert stage.inputs.comparisons == "some/pairs/train_prefs"
    assert recipe.splits["reward"] == 1.0
    assert lost(found, "learned") == set()
    assert "warmup_ratio" in lost(read(tmp_path, DPO)[0], "learned")  # of how many steps?


@pytest.mark.parametrize(
    ("losses", "smoothing", "loss", "noise"),
    [("sigmoid", 0.0, "dpo", 0.0), (["ipo"], 0.0, "ipo", 0.0), ("robust", 0.2, "robust", 0.2), ("robust", 0, "dpo", 0)],
)
def test_losses_of_dpo(tmp_path: Path, losses: Any, smoothing: float, loss: str, noise: float) -> None:
    settings = {"beta": 0.1, "ld_alpha": None, "loss_type": losses, "label_smoothing": smoothing}
    found, stage, _ = read(tmp_path, settings)
    assert (stage.config.loss, stage.config.label_noise) == (loss, noise)
    assert lost(found, "learned") == set()


def test_what_dpo_of_trl_does_and_a_recipe_cannot(tmp_path: Path) -> None:
    settings = {"beta": 0.1, "loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5], "f_divergence_type": "js"}
    found, stage, _ = read(tmp_path, settings)
    assert stage.config.loss == "dpo"
    assert lost(found, "learned") == {"loss_type", "loss_weights", "f_divergence_type"}
    unread, _, _ = read(tmp_path, {"beta": 0.1, "ld_alpha": None, "label_smoothing": 0.1})
    assert lost(unread, "other") == {"label_smoothing"}


def test_steps_become_passes(tmp_path: Path) -> None:
    """500 steps of 64 pairs are two passes over 16000 rows, and 2.5 over 12800."""
    settings = {"beta": 0.1, "ld_alpha": None, "per_device_train_batch_size": 64, "max_steps": 500}
    even, stage, _ = read(tmp_path, settings, rows=16_000)
    assert (stage.config.epochs, lost(even, "learned")) == (2, set())
    odd, _, _ = read(tmp_path, settings, rows=12_800)
    assert lost(odd, "learned") == {"max_steps"}
    unknown, _, _ = read(tmp_path, settings)
    assert "epochs" in {one.ours for one in unknown.counterparts if one.pending}


def test_sft_reward_and_rloo_of_trl(tmp_path: Path) -> None:
    found, sft, _ = read(tmp_path, SFT)
    assert (sft.kind, sft.config.demonstrations_per_step, sft.config.max_tokens) == ("sft", 4, 512)
    assert lost(found, "learned") == set()
    packed, _, _ = read(tmp_path, SFT.replace("packing: false", "packing: true"))
    assert lost(packed, "learned") == {"packing"}

    _, reward, recipe = read(tmp_path, REWARD)
    assert (reward.config.center_coef, reward.config.prompts_per_step) == (0.01, 8)
    assert reward.config.max_tokens >= 10**6  # no limit but the context
    assert recipe.splits["rl"] > 0  # of which scores are normalised

    _, rloo, _ = read(tmp_path, RLOO)
    assert (rloo.config.samples_per_prompt, rloo.config.prompts_per_step, rloo.config.kl_coef) == (4, 2, 0.05)
    [part] = rloo.inputs.reward
    assert (part.reward, part.clip) == ("./reward.py:reward", 5.0)
    lopsided, _, _ = read(tmp_path, RLOO.replace("[-5, 5]", "[0, 5]"))
    assert lost(lopsided, "learned") == {"reward_clip_range"}


def test_epochs_of_prompts_become_steps_once_their_number_is_known(tmp_path: Path) -> None:
    """2.5 passes over 100 prompts, 2 to a step."""
    given = RLOO.replace("}", ", num_train_epochs: 2.5}")
    _, stage, _ = read(tmp_path, given, rows=100)
    assert stage.config.num_steps == 125
    found, _, _ = read(tmp_path, given)
    assert "num_steps" in {one.ours for one in found.counterparts if one.pending}


@pytest.mark.parametrize("kind", SHAPES)
def test_a_made_up_setting_is_told(tmp_path: Path, kind: str) -> None:
    tree = yaml.safe_load(SHAPES[kind])
    before, _, _ = read(tmp_path, tree)
    (tree["alg"]["args"] if kind == "nlpo" else tree)["made_up"] = 3
    found, _, _ = read(tmp_path, tree)
    [unknown] = [one for one in found.lost if one.group == "unknown"]
    assert (unknown.name.rpartition(".")[2], unknown.value) == ("made_up", 3)
    assert (found.counterparts, found.at_default) == (before.counterparts, before.at_default)


@given(kind=st.sampled_from(sorted(SHAPES)), data=st.data())
def test_every_setting_is_accounted_for(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    """Whatever part of the settings a file has: each is mapped, told to be lost, or counted."""
    tree = yaml.safe_load(SHAPES[kind])
    leaf = tree["alg"]["args"] if kind == "nlpo" else tree
    telling = {"ppo": "kl_coef", "grpo": "scale_rewards", "dpo": "label_smoothing", "sft": "packing"} | {
        "reward": "center_rewards_coefficient",
        "rloo": "reward_clip_range",
    }
    for name in data.draw(st.sets(st.sampled_from(sorted(leaf)))) - {telling.get(kind)}:
        del leaf[name]
    found, _, _ = read(tmp_path_factory.mktemp("translate"), tree, devices=4, rows=1000)
    names = flatten(tree) if kind == "nlpo" else tree
    mapped = {name for name in names if any(f"{name} = " in one.theirs for one in found.counterparts)}
    told = mapped | {one.name for one in found.lost if not one.silent}
    assert len(set(names) - told) == found.at_default


def test_a_translated_recipe_runs(tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is told to be written is written, and the stage trains: 4 x 12 = 48 tokens, 6 to an answer."""
    monkeypatch.chdir(tmp_path)
    small = {"tokenizer__model_name": str(tiny_model_dir), "alg__policy__args__model_name": str(tiny_model_dir)}
    small |= {"env__n_envs": 4, "alg__args__n_steps": 12, "env__args__max_episode_length": 6}
    small |= {"alg__args__batch_size": 12, "train_evaluation__n_iters": 1, "train_evaluation__eval_every": 1}
    _, _, recipe = read(tmp_path, rl4lms(**small, reward_fn={"id": "brevity", "args": {}}))
    (tmp_path / "reward.py").write_text(
        "def brevity(prompts, completions):\n    return [-len(c.text) for c in completions]"
    )
    write_jsonl(tmp_path / "prompts.jsonl", ({"prompt": f"{one} {other}"} for one in WORDS for other in WORDS))
    run_recipe(recipe, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run/nlpo/metrics.jsonl").read_text().splitlines()]
    [trained] = [row for row in rows if row["kind"] == "train"]
    assert trained["kl_coef"] == 0.2
    assert trained["length_tokens"] <= 6


def test_json_is_read_as_well(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(json.dumps(yaml.safe_load(DPO)))
    found = translate(tmp_path / "settings.json")
    assert found.counterparts == read(tmp_path, DPO)[0].counterparts


def test_a_converted_value_is_explained_at_its_line(tmp_path: Path) -> None:
    lines = read(tmp_path, NLPO)[0].recipe().splitlines()
    [target] = [line for line in lines if line.startswith("kl_target")]
    assert target.startswith("kl_target = 2.0  # ")
    assert "0.05 per token" in target


@pytest.mark.parametrize(
    ("settings", "options", "said"),
    [
        ("a: [", {}, "not valid YAML"),
        ("a: !!python/object:x.Y {}", {}, "config.to_dict()"),
        ("- 1", {}, "holds list, no settings by name"),
        ("", {}, "holds NoneType"),
        ("alg: {id: npo}", {}, 'alg.id = "npo" is unknown; did you mean "nlpo"?'),
        ("alg: {args: {}}", {}, "alg.id is missing"),
        (rl4lms(alg__args__n_steps="many"), {}, 'alg.args.n_steps = "many": write a number'),
        (rl4lms(alg__args__n_steps=1.5), {}, "alg.args.n_steps = 1.5: write a whole number of at least 1"),
        (rl4lms(alg__args__normalize_advantage="yes please"), {}, "write true or false"),
        (rl4lms(alg__policy__args__model_name=3), {}, "alg.policy.args.model_name = 3: write a text"),
        (rl4lms(), {"kind": "ppo"}, "leave --kind out"),
        (
            rl4lms(alg__args__clip_range=1.5),
            {},
            "no recipe can say this: stage nlpo: nlpo.clip must lie between 0 and 1",
        ),
        ("max_length: 512", {}, "DPOConfig or SFTConfig or RewardConfig; say which, --kind dpo"),
        ("{packing: true, cliprange: 0.2}", {}, "cliprange, packing belong to no class together"),
        ("learning_rate: 1.0e-5", {}, "no setting tells whose they are"),
        ("{beta: 0.1, desirable_weight: 1.0}", {}, "desirable_weight is of KTOConfig, which is not translated"),
        (GRPO, {"devices": 1, "kind": "grop"}, 'no settings are called "grop"; did you mean "grpo"?'),
        (
            GRPO.replace("num_generations: 8", "num_generations: 6"),
            {},
            "on 1 device, or say --devices, and are no groups of num_generations = 6",
        ),
        (GRPO + "reward_weights: [a]\n", {}, 'reward_weights = ["a"]: write a list of numbers'),
        (GRPO + "reward_weights: [1.0, 2.0]\n", {}, "reward_weights: 2 numbers for 1 rewards"),
    ],
)
def test_mistakes_are_told_with_file_and_mend(
    tmp_path: Path, settings: str | dict[str, Any], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as error:
        read(tmp_path, settings, **options)
    assert said in str(error.value)
    assert str(error.value).startswith((str(tmp_path / "settings.yaml"), "--kind"))
    assert "\n" not in str(error.value)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yml: cannot be read: No such file"):
        translate(tmp_path / "nowhere.yml")


def test_kind_may_be_said(tmp_path: Path) -> None:
    _, stage, _ = read(tmp_path, "max_length: 512", kind="dpo")
    assert (stage.kind, stage.config.max_tokens) == ("dpo", 512)
