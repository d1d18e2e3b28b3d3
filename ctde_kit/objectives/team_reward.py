"""One reward of the whole team: the mean or the sum of its agents' rewards."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

import torch
from tensordict import TensorDictBase
from torch import nn

from ctde_kit.entry_tables import Entry, GroupEntries
from ctde_kit.errors import check_choice
from ctde_kit.keys import next_key
from ctde_kit.objectives.entry_checks import EntryCheck
from ctde_kit.objectives.read_entries import masks_of
from ctde_kit.specs import TeamSpec

Reduction = Literal["mean", "sum"]
REDUCTIONS: tuple[Reduction, ...] = get_args(Reduction)
REWARD = "reward"


class TeamReward(nn.Module):
    """Writes ``("next", "reward")`` ``[*B, 1]``: the mean or sum of all agents' rewards, dead agents' counting as 0.

    Reads ``("next", group, "reward")`` ``[*B, n_agents, 1]`` and, where agents die, ``(group, "mask")``. The mean
    divides by the number of all agents, dead ones included, so that its unit does not change when one dies.

    Args:
        team: all groups.
        reduction: ``mean`` or ``sum``.

    Raises:
        UserError: for a missing reward, or an unknown ``reduction``.

    >>> import torch
    >>> from tensordict import TensorDict
    >>> from ctde_kit.objectives import TeamReward
    >>> from ctde_kit.specs import ActionSpec, GroupSpec, TeamSpec
    >>> team = TeamSpec((GroupSpec("agents", 2, 5, ActionSpec("categorical", (4,))),))
    >>> batch = TensorDict({("next", "agents", "reward"): torch.tensor([[[1.0], [2.0]]])}, [1])
    >>> TeamReward(team, "mean")(batch)["next", "reward"]
    tensor([[1.5000]])
    """

    def __init__(self, team: TeamSpec, reduction: Reduction):
        super().__init__()
        self.team = team
        self.reduction: Reduction = check_choice("TeamReward", "reduction", reduction, REDUCTIONS)
        self._check_entries = EntryCheck("TeamReward", self._table())

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What it reads of a batch: each batch is checked against this table."""
        return self._check_entries.entries

    def _table(self) -> list[Entry]:
        rewards = [replace(GroupEntries.of(group).reward, dtype="any float") for group in self.team]
        return [*(entry for group in self.team for entry in masks_of(group)[:1]), *rewards]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        self._check_entries(tensordict)
        parts = []
        for group in self.team:
            reward = tensordict.get(next_key(group.keys.reward))
            if group.mask:
                reward = reward.masked_fill(~tensordict.get(group.keys.mask).unsqueeze(-1), 0)
            parts.append(reward)
        total = torch.cat(parts, -2).sum(-2)
        n_agents = sum(group.n_agents for group in self.team)
        return tensordict.set(next_key(REWARD), total / n_agents if self.reduction == "mean" else total)
