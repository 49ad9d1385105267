"""The engine of one process, CPU or one GPU; under torchrun, of the ranks that do its work together (ranks.py)."""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
import sys
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tuneful.data.batching import TOKENS_PER_PASS
from tuneful.data.templates import prompt_ids
from tuneful.engines import ranks, sharding
from tuneful.engines.optimization import Optimization
from tuneful.engines.protocol import Batch, Loss, Metrics, RoleName
from tuneful.errors import CheckError, ConfigError, ModelError, TrainingError
from tuneful.functional.kl import k1
from tuneful.generation.decoding import why_waves
from tuneful.generation.guided import Guide
from tuneful.generation.rollout import Rollout, joined
from tuneful.generation.sampler import Choose, Sampler
from tuneful.generation.sampling import Sampling
from tuneful.models.forward import (
    Outputs,
    policy_kl,
    policy_outputs,
    refuse_other_logprobs,
    reward_scores,
    value_outputs,
)
from tuneful.models.roles import Role, Roles
from tuneful.records import Prompt

EXACT_KL_VOCABULARY = 8_192
"""Up to this vocabulary the KL is reported exactly, beyond it as the mean of k1."""


class LocalEngine:
    """Engine on this process's device (see protocol.Engine). Dropout is off in every role, also while training.

    Raises ModelError for a tokenizer of more tokens than a model embeds, and for a policy of a family whose logprobs it
    would get wrong.

    Among several ranks every call is made by all: each does its share of the rows, balanced by tokens, and all return
    the whole. Where the roles are sharded, each rank holds and updates its part of the layers.
    """

    def __init__(
        self,
        roles: Roles,
        tokenizer: Any,
        *,
        optimization: Optimization = Optimization(),
        total_steps: int = 1,
        tokens_per_microbatch: int = TOKENS_PER_PASS,
    ) -> None:
        self.roles = roles
        self.tokenizer = tokenizer
        self.optimization = optimization
        self.total_steps = total_steps
        self.tokens_per_microbatch = tokens_per_microbatch
        self.updates = 0
        self.version = 0
        self.guide: Guide | None = None
        self.beside: dict[str, Tensor] = {}
        """Weights of a learner's own that no optimizer moves, by name: saved and restored with the trained ones."""
        self._weights = roles.weights()
        self._in_step = sharding.is_sharded(roles)
        self._adamw: torch.optim.AdamW | None = None
        self._probe: Batch | None = None
        for role in (roles.policy, roles.reward):
            if role is not None:
                _check_vocabulary(role, tokenizer)
        if roles.policy is not None:
            refuse_other_logprobs(roles.policy)

    @property
    def _optimizer(self) -> torch.optim.AdamW:
        """Made at the first update: engines that only sample or score have nothing to optimize."""
        if not self._weights:
            raise ConfigError("this engine trains no role")
        if self._adamw is None:
            ranks.refuse_different("the weights to be trained", self.weight_hash() if ranks.world_size() > 1 else "")
            settings = self.optimization
            by_kind = [[w for w in self._weights.values() if sharding.is_part(w) is part] for part in (False, True)]
            self._adamw = torch.optim.AdamW(
                [{"params": weights} for weights in by_kind if weights],  # which AdamW cannot update together
                lr=settings.learning_rate,
                eps=settings.adam_eps,
                weight_decay=settings.weight_decay,
                fused=True,  # else temporaries as large as the weights, and seven times as long
            )
        return self._adamw

    def as_reference(self) -> LocalEngine:
        """An engine that samples from the reference."""
        return LocalEngine(Roles(policy=self._role("reference")), self.tokenizer)

    def parameters(self) -> list[nn.Parameter]:
        """The trained weights, for algorithms that need them themselves."""
        return list(self._weights.values())

    @cached_property
    def waves(self) -> str | None:
        """Why rows leave a batch but none enters until all have; None where they enter (see decoding.why_waves)."""
        return why_waves(self._role("policy"))

    def sample(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        *,
        seed: int,
        values: bool = False,
        choose: Choose | None = None,
        keep_allowed: bool = True,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Rollout:
        if choose is None and self.guide is not None:
            ids = [prompt_ids(prompt, self.tokenizer, max_tokens=sampling.max_prompt_tokens) for prompt in prompts]
            choose, keep_allowed = self.guide.choose(ids, sampling), False
        sampler = Sampler(
            self._role("policy"),
            self.tokenizer,
            value=self.roles.value,
            version=self.version,
            waves=self.waves is not None,
        )
        sample = partial(
            sampler.sample,
            prompts,
            sampling,
            seed=seed,
            values=values,
            choose=choose,
            keep_allowed=keep_allowed,
            on_progress=on_progress,
        )
        if ranks.world_size() == 1:
            rollout = sample()
        else:
            ids = [prompt_ids(prompt, self.tokenizer, max_tokens=sampling.max_prompt_tokens) for prompt in prompts]
            own = ranks.share([len(tokens) + sampling.num_samples * sampling.max_new_tokens for tokens in ids])
            with sharding.whole(self._role("policy").model):
                parts = ranks.gather(lambda: sample(only=own).to("cpu") if own else None)
            rollout = joined([part for part in parts if part is not None]).to(self._role("policy").device)
        _give_back_memory()
        return rollout

    @torch.no_grad()
    def score(self, role: RoleName, rollout: Rollout) -> Tensor:
        width = rollout.mask.shape[1]
        shape = len(rollout) if role == "reward" else rollout.mask.shape
        result = torch.zeros(shape, device=self._role(role).device)
        for rows, counts in self._passes(rollout.prompts, rollout.completions, None):
            prompts, completions = [rollout.prompts[i] for i in rows], [rollout.completions[i] for i in rows]
            if role == "reward":
                numbers = reward_scores(self._role(role), prompts, completions)
            elif role == "value":
                numbers = _present(value_outputs(self._role(role), prompts, completions, width=width).values)
            else:
                outputs = policy_outputs(
                    self._role(role), prompts, completions, width=width, temperature=rollout.temperature
                )
                numbers = _present(outputs.logprobs)
            if counts:
                result[torch.tensor(rows, device=result.device)] = numbers
        _give_back_memory()
        return ranks.add_up(result)

    @torch.no_grad()
    def kl(self, rollout: Rollout) -> tuple[Tensor, Literal["exact", "k1"]]:
        """KL(policy, reference) of each completion in nats [N], and how it was computed.

        Exact: the full-vocabulary KL of every token, summed; k1: the sum of logprob differences of the sampled tokens.
        Of a guided policy it is always k1, of what was drawn from.
        """
        if self.guide is not None:
            drawn = k1(rollout.sampled_logprobs, self.score("reference", rollout))
            return (drawn * rollout.mask).sum(-1), "k1"
        policy, reference = self._role("policy"), self._role("reference")
        if policy.model.config.get_text_config().vocab_size > EXACT_KL_VOCABULARY:
            difference = k1(self.score("policy", rollout), self.score("reference", rollout))
            return (difference * rollout.mask).sum(-1), "k1"
        total = torch.zeros(len(rollout), device=rollout.mask.device)
        for rows, counts in self._passes(rollout.prompts, rollout.completions, None):
            prompts, completions = [rollout.prompts[i] for i in rows], [rollout.completions[i] for i in rows]
            per_token, row = policy_kl(policy, reference, prompts, completions, temperature=rollout.temperature)
            total.index_add_(0, torch.tensor(rows, device=total.device)[row], per_token * counts)
        return ranks.add_up(total), "exact"

    def forward_backward(self, batch: Batch, loss: Loss) -> Metrics:
        own: list[Metrics] = []
        for rows, counts in self._passes(batch.prompts, batch.completions, batch.units):
            part, metrics = loss(self._forward(batch, rows), rows)
            (part if counts else part * 0).backward()  # type: ignore[no-untyped-call]
            if counts:
                own.append(metrics)
        self._probe = batch
        total: Metrics = {}
        for metrics in chain.from_iterable(ranks.gather(lambda: own)):
            for name, value in metrics.items():
                total[name] = total.get(name, 0.0) + value
        return total

    def step(self, max_norm: float) -> float:
        """See protocol.Engine. A gradient that is not finite is dropped and raises TrainingError; nothing has moved."""
        ranks.add_gradients(w for w in self._weights.values() if not sharding.is_part(w))
        norm = sharding.clip_gradients(self._weights.values(), max_norm)
        rate = self.optimization.rate(self.updates, self.total_steps)
        if not math.isfinite(norm):
            self._optimizer.zero_grad(set_to_none=True)
            raise TrainingError(
                f"update {self.updates + 1}: the gradient's norm is {norm} at learning rate {rate:.3g}, so no weight "
                "was changed; run with a lower optimization.learning_rate and a new --out (the old one goes on from "
                "its last checkpoint, with the same recipe only)"
            )
        frozen = [name for name, weight in self._weights.items() if not weight.requires_grad]
        if frozen:
            raise TrainingError(f"{len(frozen)} weights that are to be trained are frozen, the first is {frozen[0]}")
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.updates += 1
        return norm

    def leave_out(self, updates: int) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        self.updates += updates

    def publish_weights(self) -> int:
        self.version += 1
        _give_back_memory()
        return self.version

    def save(self, path: Path) -> None:
        """See protocol.Engine. Rank 0 writes, and of sharded weights each rank its parts, where rank 0 does.

        CheckError when the weights of the others are not the same.
        """
        digest = self.weight_hash()
        ranks.refuse_different("the trained weights", digest)
        probe = None if self._probe is None else _first_rows(self._probe, 4)
        numbers = None if probe is None else self._numbers(probe)
        if self._sharded:
            state = self._optimizer.state
            moments = {name: state[weight] for name, weight in self._weights.items() if weight in state}
            folder = ranks.from_first(lambda: path / "parts")
            sharding.save_parts(folder, {"weights": dict(self._weights), "optimizer": moments})
        if ranks.rank() > 0:
            return
        if not self._sharded:
            torch.save({"weights": self._weights, "optimizer": self._optimizer.state_dict()}, path / "engine.pt")
        if self.beside:
            torch.save(self.beside, path / "beside.pt")
        facts = {"updates": self.updates, "version": self.version, "weights": digest}
        (path / "engine.json").write_text(json.dumps(facts))
        if probe is not None:
            rows = {"role": probe.role, "prompts": probe.prompts, "completions": probe.completions}
            torch.save(rows | {"numbers": numbers}, path / "probe.pt")

    def load(self, path: Path) -> None:
        state = self._read(path)
        self._optimizer.state.clear()
        with torch.no_grad():
            for name, weight in self._weights.items():
                weight.copy_(sharding.part_like(weight, state["weights"][name]))
                if name in state["optimizer"]:
                    self._optimizer.state[weight] = {
                        # AdamW's fused kernel reads the count of steps where the weight is.
                        moment: number.to(weight.device) if moment == "step" else sharding.part_like(weight, number)
                        for moment, number in state["optimizer"][name].items()
                    }
            beside = torch.load(path / "beside.pt", weights_only=True, map_location="cpu") if self.beside else {}
            for name, kept in self.beside.items():
                kept.copy_(beside[name])
        facts = json.loads((path / "engine.json").read_text())
        self.updates, self.version = facts["updates"], facts["version"]
        if self.weight_hash() != facts["weights"]:
            raise CheckError(f"{path}: the loaded weights are not those that were saved; remove this checkpoint")
        if (path / "probe.pt").exists():
            probe = torch.load(path / "probe.pt", weights_only=True)
            stored = probe.pop("numbers")
            self._probe = Batch(**probe)
            now, role = self._numbers(self._probe).cpu(), self._role(self._probe.role)
            away = (now - stored.cpu()).abs()
            # The mean is that of tokens: zeros stand after the end of a completion.
            drift = float(away.sum() / now.count_nonzero().clamp_min(1) if role.half else away.max())
            if not drift < role.rounding:  # another card rounds differently
                raise CheckError(
                    f"{path}: stored rows now score {drift:.1e} away from what they did; other base model?"
                )

    @property
    def _sharded(self) -> bool:
        """True when this rank holds a part of what it trains."""
        return any(map(sharding.is_part, self._weights.values()))

    def _read(self, path: Path) -> sharding.State:
        """What a checkpoint of one rank or several holds, by the names of the weights."""
        if (path / "parts").is_dir():
            return sharding.load_parts(path / "parts", self._weights)
        state = torch.load(path / "engine.pt", weights_only=True, map_location="cpu")
        if state["weights"].keys() != self._weights.keys():
            raise CheckError(f"{path}: the checkpoint holds other weights than this run trains; use the same recipe")
        names = list(self._weights)  # the optimizer's numbers are places among these
        moments = {names[number]: moments for number, moments in state["optimizer"]["state"].items()}
        return {"weights": state["weights"], "optimizer": moments}

    def weight_hash(self) -> str:
        """SHA-256 of the trained weights."""
        digest = hashlib.sha256()
        for name, weight in self._weights.items():
            digest.update(name.encode())
            digest.update(sharding.gathered(weight).cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def _forward(self, batch: Batch, rows: list[int]) -> Outputs:
        prompts, completions = [batch.prompts[i] for i in rows], [batch.completions[i] for i in rows]
        if batch.role == "reward":
            scores = reward_scores(self._role("reward"), prompts, completions)
            return Outputs(torch.ones(len(rows), 1, dtype=torch.bool, device=scores.device), scores=scores)
        return policy_outputs(
            self._role("policy"),
            prompts,
            completions,
            width=batch.width,
            temperature=batch.temperature,
            value=self._role("value") if batch.with_values else None,
            entropy_grad=batch.entropy_grad,
            allowed=None if batch.allowed is None else [batch.allowed[i] for i in rows],
            with_states=batch.with_states,
        )

    @torch.no_grad()
    def _numbers(self, batch: Batch) -> Tensor:
        outputs = self._forward(batch, list(range(len(batch))))
        return _present(outputs.scores if batch.role == "reward" else outputs.logprobs)

    def _passes(
        self, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], units: Sequence[int] | None
    ) -> list[tuple[list[int], bool]]:
        """Rows of each forward pass of this rank, and whether they count.

        The ranks of sharded models gather each layer together, so one that has fewer passes fills up with rows that
        another computes.
        """
        lengths = [len(p) + len(c) for p, c in zip(prompts, completions, strict=True)]
        batches = ranks.microbatches(lengths, self.tokens_per_microbatch, units, [tuple(prompt) for prompt in prompts])
        if not self._in_step:
            return [(rows, True) for rows in batches]
        short = min(range(len(lengths)), key=lengths.__getitem__)
        unit = [short] if units is None else [row for row, other in enumerate(units) if other == units[short]]
        return ranks.in_step(batches, unit)

    def _role(self, name: RoleName) -> Role:
        role: Role | None = getattr(self.roles, name)
        if role is None:
            raise ConfigError(f"this engine was built without a {name}")
        return role


def _give_back_memory() -> None:
    """Return to the system what glibc keeps after a phase; the pieces of one phase rarely fit the next, and add up."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _check_vocabulary(role: Role, tokenizer: Any) -> None:
    rows = role.model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ModelError(
            f"the tokenizer has {len(tokenizer)} tokens and the {role.name} {role.model.name_or_path} embeds {rows}; "
            "use the tokenizer it was trained with, or model.resize_token_embeddings(len(tokenizer))"
        )


def _first_rows(batch: Batch, count: int) -> Batch:
    return Batch(role=batch.role, prompts=batch.prompts[:count], completions=batch.completions[:count])


def _present(numbers: Tensor | None) -> Tensor:
    assert numbers is not None
    return numbers
