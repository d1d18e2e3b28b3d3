"""The input of a network that serves all groups: one row per agent of every group."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from ctde_kit.entry_tables import Entry
from ctde_kit.keys import Key
from ctde_kit.modules.networks.inputs import Input
from ctde_kit.modules.typed_containers import all_of


class TeamInput(nn.Module):
    """The input of a ``TeamChannel``: one row per agent of all groups, ``[*B, N, F]``, in the team's order.

    F is the size of the widest group; the rows of other groups end in zeros. It is used like an ``Input``.

    Args:
        inputs: what each group's agents see, such as ``own_observation(group)``, in the team's order.

    >>> from tensordict import TensorDict
    >>> from ctde_kit.modules import own_observation
    >>> from ctde_kit.specs import ActionSpec, GroupSpec
    >>> groups = [GroupSpec("wolves", 3, 5, ActionSpec("categorical", (4,)))]
    >>> groups += [GroupSpec("sheep", 2, 8, ActionSpec("categorical", (4,)))]
    >>> rows = TeamInput({group.name: own_observation(group) for group in groups})
    >>> observations = {"wolves": {"observation": torch.ones(7, 3, 5)}, "sheep": {"observation": torch.ones(7, 2, 8)}}
    >>> rows(TensorDict(observations, [7])).shape
    torch.Size([7, 5, 8])
    """

    decentralized = False
    per_agent = True

    def __init__(self, inputs: Mapping[str, Input]):
        super().__init__()
        self.inputs = nn.ModuleDict(dict(inputs))
        self.n_agents = sum(group_input.n_agents for group_input in inputs.values())
        self.features = max(group_input.features for group_input in inputs.values())

    @property
    def _inputs(self) -> list[Input]:
        return all_of(self.inputs.values(), Input)

    @property
    def in_keys(self) -> list[Key]:
        return [key for group_input in self._inputs for key in group_input.in_keys]

    @property
    def in_entries(self) -> list[Entry]:
        return [entry for group_input in self._inputs for entry in group_input.in_entries]

    def forward(self, tensordict: TensorDictBase) -> Tensor:
        rows = [
            nn.functional.pad(group_input(tensordict), (0, self.features - group_input.features))
            for group_input in self._inputs
        ]
        return torch.cat(rows, -2)

    def alive(self, tensordict: TensorDictBase) -> Tensor | None:
        """Which agents are alive, bool ``[*B, N]``; ``None`` if no group has a mask."""
        masks = [(group_input.alive(tensordict), group_input.n_agents) for group_input in self._inputs]
        known = next((mask for mask, _ in masks if mask is not None), None)
        if known is None:
            return None
        return torch.cat([known.new_ones(*known.shape[:-1], n) if mask is None else mask for mask, n in masks], -1)
