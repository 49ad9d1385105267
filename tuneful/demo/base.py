"""The demo's base model: trained from the grammar at first use, kept in a cache, a plain model directory after that.

It first reads a textbook, what mends what and whether a remedy helps, then dialogues with some textbook among them.
Dialogues alone, where the right remedy is one answer in five, teach a model of this size in this time how people talk,
but not what mends what, and no reward model can be built on what its base does not know.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from tuneful.algorithms.loop import Progress
from tuneful.algorithms.sft import SFT, SFTConfig
from tuneful.data.sources import cache_folder
from tuneful.data.splits import split_of
from tuneful.demo.grammar import corpus, prompts, textbook
from tuneful.demo.tokenizer import build_tokenizer
from tuneful.demo.world import BASE_CONFIG, world_hash
from tuneful.engines.local import LocalEngine
from tuneful.engines.optimization import Optimization
from tuneful.errors import RunError
from tuneful.models.loading import save_model
from tuneful.models.roles import Role, Roles, named_weights
from tuneful.records import content_hash
from tuneful.settings import as_table

NUM_TEXTBOOK = 10_400
"""Textbook rows before the first dialogue."""
NUM_MIXED = (10_000, 4_000)
"""Dialogues, and textbook rows among them."""
INITIAL_SCALE = 0.06
"""Standard deviation of the first weights; a width of 128 learns faster from this than from the usual 0.02."""
CONFIG = SFTConfig(
    demonstrations_per_step=16,
    optimization=Optimization(learning_rate=1.5e-3, schedule="cosine", warmup_steps=20, adam_eps=1e-8),
)
"""The seed is fixed: a run's seed changes everything after the base, not the base."""


def base_model(progress: Progress | None = None) -> Path:
    """Directory of the base model, trained now unless it is in the cache.

    The cache key is a hash of the grammar and of all settings, so a changed world trains a new base.
    """
    key = content_hash(world_hash(), NUM_TEXTBOOK, NUM_MIXED, INITIAL_SCALE, as_table(CONFIG), BASE_CONFIG)
    folder = cache_folder() / f"demo-base-{key}"
    if folder.is_dir():
        return folder
    return _train(folder, progress)


def _train(folder: Path, progress: Progress | None) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = build_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**BASE_CONFIG, initializer_range=INITIAL_SCALE))
    known = [prompt for prompt in prompts(seed=0) if split_of(prompt) in ("reward", "rl")]
    courses = [
        textbook(NUM_TEXTBOOK, seed=0, among=known),
        corpus(NUM_MIXED[0], seed=1, among=known) + textbook(NUM_MIXED[1], seed=2, among=known, dressed=True),
    ]
    num_steps = sum(CONFIG.num_steps(len(rows)) for rows in courses)
    roles = Roles(policy=Role("policy", model, weights=named_weights("policy", model)))
    optimization = CONFIG.optimization
    engine = LocalEngine(
        roles, tokenizer, optimization=optimization, total_steps=num_steps, tokens_per_microbatch=1_024
    )
    for rows in courses:
        learner = SFT(engine, rows, CONFIG, tokenizer)
        for _ in range(CONFIG.num_steps(len(rows))):
            metrics = learner.step()
            if progress is not None:
                progress(engine.updates, num_steps, metrics)
    store(model, tokenizer, folder)
    return folder


def store(model: Any, tokenizer: Any, folder: Path) -> None:
    """Put a trained model into the cache, whole or not at all; two processes may do so at once."""
    beside = folder.with_name(f"{folder.name}.{os.getpid()}")
    try:
        beside.mkdir(parents=True)
        save_model(model, tokenizer, beside)
        beside.rename(folder)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        if not folder.is_dir():  # else another process put it there first
            raise RunError(f"{folder}: the model could not be stored: {error}; set TUNEFUL_CACHE") from None
