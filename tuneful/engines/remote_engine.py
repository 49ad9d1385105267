"""An engine that trains and scores on this process's device and has its policy sampled by a server."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tuneful.engines import ranks
from tuneful.engines.local import LocalEngine
from tuneful.engines.remote import RemoteSampler
from tuneful.errors import ConfigError
from tuneful.generation.rollout import Rollout
from tuneful.generation.sampler import Choose
from tuneful.generation.sampling import Sampling
from tuneful.models.roles import Roles
from tuneful.records import Prompt

COMPARED = 32
"""The most rows of each rollout that are scored here too, once the server's logprobs are trusted."""


class RemoteEngine(LocalEngine):
    """Samples at `remote`; everything else is LocalEngine's. Synchronous: each rollout is of the newest weights.

    trusted: whether the server's logprobs are taken. The first rollout decides, scored here whole; should a later one
    differ, that ends. Logprobs that are not taken are computed here, and `sampled_logprobs` keeps the server's.
    """

    def __init__(self, roles: Roles, tokenizer: Any, remote: RemoteSampler, **settings: Any) -> None:
        if ranks.world_size() > 1:
            raise ConfigError("sampler: a server samples for one process; leave sampler out, or torchrun")
        super().__init__(roles, tokenizer, **settings)
        self.remote = remote
        self.trusted: bool | None = None
        self._sent: int | None = None

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
        """See protocol.Engine; values are left out, for they are computed where the value is."""
        if choose is not None:
            raise ConfigError("sampler: what chooses tokens by itself runs beside the model; leave sampler out")
        if self._sent != self.version:  # at the start, and after a resume
            self._send()
        policy = self._role("policy")
        rollout = self.remote.sample(
            prompts, sampling, seed=seed, version=self.version, device=policy.device, on_progress=on_progress
        )
        return self._compared(rollout)

    def publish_weights(self) -> int:
        version = super().publish_weights()
        self._send()
        return version

    def save(self, path: Path) -> None:
        """See protocol.Engine; whether the server is trusted is kept too, for a distrust must outlast a resume."""
        super().save(path)
        (path / "remote.json").write_text(json.dumps({"trusted": self.trusted}))

    def load(self, path: Path) -> None:
        super().load(path)
        self.trusted = json.loads((path / "remote.json").read_text())["trusted"]

    def _send(self) -> None:
        self.remote.publish(self._role("policy"), version=self.version, weights=self.weight_hash())
        self._sent = self.version

    def _compared(self, rollout: Rollout) -> Rollout:
        """The rollout with its mismatch, and with logprobs of this engine where the server's are not to be trusted."""
        rows = range(len(rollout))
        some = rollout.rows(rows[:: -(-len(rows) // COMPARED)]) if self.trusted else rollout
        here = self.score("policy", some)
        distance = (here - some.sampled_logprobs).abs()[some.mask]
        mismatch = {"engine_mismatch": float(distance.max()), "engine_mismatch_mean": float(distance.mean())}
        self.trusted = self.trusted is not False and mismatch["engine_mismatch"] <= self._role("policy").rounding
        logprobs = rollout.logprobs
        if not self.trusted:
            logprobs = here if len(some) == len(rollout) else self.score("policy", rollout)
        return replace(rollout, logprobs=logprobs, engine_mismatch=mismatch)
