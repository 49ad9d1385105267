"""A second model that reads along: at every draw of the sampler, its own logits for the same rows."""

from __future__ import annotations

import torch
from torch import Tensor

from tuneful.generation.decoding import begin_decoding, cache_of_token, rows_together
from tuneful.models.ragged import Ids
from tuneful.models.roles import Role


class Lockstep:
    """Runs `role` over the rows of one call of the sampler, for a `choose` hook that needs another model's opinion.

    The hook passes on what the sampler tells it with `admit`, `drawn` and `drop`, and asks for `logits` when it is
    called. The role keeps a cache of its own, as large as the sampler's.
    """

    def __init__(self, role: Role, prompts: Ids, *, num_samples: int, max_new_tokens: int) -> None:
        """prompts: token ids of all prompts of the call, as the sampler reads them."""
        self.role = role
        self.prompts = prompts
        self.num_samples = num_samples
        longest = max(map(len, prompts)) + max_new_tokens
        room = rows_together(cache_of_token(role.model), longest, num_samples)
        self._decoding = begin_decoding(role, rows=min(room, len(prompts) * num_samples), longest=longest)
        self._rows: list[int] = []  # under way, in the order of the cache
        self._drawn: dict[int, int] = {}  # not read yet
        self._hidden: Tensor | None = None

    @property
    def waves(self) -> str | None:
        """Why none of its rows may begin while others are under way; the hook passes it on. None where one may."""
        return self._decoding.waves

    def admit(self, rows: Tensor) -> None:
        """Begin these rows, int64 [n]: all samples of some prompts."""
        self._catch_up()
        self.role.activate()
        begun = rows.tolist()
        prompts = [self.prompts[row // self.num_samples] for row in begun[:: self.num_samples]]
        states = self._decoding.admit(prompts, self.num_samples)
        self._hidden = states if self._hidden is None else torch.cat([self._hidden, states])
        self._rows += begun

    def drawn(self, rows: Tensor, ids: Tensor) -> None:
        """Token `ids` [R] were drawn for `rows` [R]."""
        self._drawn = dict(zip(rows.tolist(), ids.tolist(), strict=True))

    def drop(self, rows: Tensor) -> None:
        """Forget these rows, int64 [n]."""
        ended = set(rows.tolist())
        kept = [place for place, row in enumerate(self._rows) if row not in ended]
        self._decoding.keep(torch.tensor(kept, dtype=torch.int64, device=self.role.device))
        self._rows = [self._rows[place] for place in kept]
        self._hidden = None

    @torch.no_grad()
    def logits(self, rows: Tensor) -> Tensor:
        """Float [R, V] before the temperature, for the next token of `rows` [R]."""
        self._catch_up()
        assert self._hidden is not None
        self.role.activate()
        place = {row: number for number, row in enumerate(self._rows)}
        index = torch.tensor([place[row] for row in rows.tolist()], device=self.role.device)
        return self._decoding.logits(self._hidden[index]).float()

    def _catch_up(self) -> None:
        """Read the tokens that were drawn since."""
        drawn, self._drawn = self._drawn, {}
        if not drawn or not self._rows:
            return
        self.role.activate()
        said = torch.tensor([drawn[row] for row in self._rows], device=self.role.device)
        self._hidden = self._decoding.step(said)
