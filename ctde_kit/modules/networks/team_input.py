"""What a network sees that serves all groups at once: each agent of each group in a row of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from ctde_kit.keys import Key
from ctde_kit.modules.networks.inputs import Input


class TeamInput(nn.Module):
    """Reads all agents of all groups as rows ``[*B, N, F]``, in the team's order; F is the largest group's, else zeros.

    It stands where an ``Input`` stands, for networks of a ``TeamChannel``.

    Args:
        inputs: what each group's agents see, such as ``own_observation(group)``, in the team's order.
    """

    decentralized = False
    per_agent = True

    def __init__(self, inputs: Mapping[str, Input]):
        super().__init__()
        self.inputs = nn.ModuleDict(dict(inputs))
        self.n_agents = sum(one.n_agents for one in inputs.values())
        self.features = max(one.features for one in inputs.values())

    @property
    def _inputs(self) -> list[Any]:
        return list(self.inputs.values())

    @property
    def in_keys(self) -> list[Key]:
        return [key for one in self._inputs for key in one.in_keys]

    def forward(self, tensordict: TensorDictBase) -> Tensor:
        rows = [nn.functional.pad(one(tensordict), (0, self.features - one.features)) for one in self._inputs]
        return torch.cat(rows, -2)

    def alive(self, tensordict: TensorDictBase) -> Tensor | None:
        """Who is alive, bool ``[*B, N]``; ``None`` where all are."""
        masks = [(one.alive(tensordict), one.n_agents) for one in self._inputs]
        known = next((mask for mask, _ in masks if mask is not None), None)
        if known is None:
            return None
        return torch.cat([known.new_ones(*known.shape[:-1], n) if mask is None else mask for mask, n in masks], -1)
