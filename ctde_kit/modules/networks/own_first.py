"""Orders of columns that put each agent's own features first in its row of the team's features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ctde_kit.specs import GroupSpec, TeamSpec


def own_first_columns(team: TeamSpec, group: GroupSpec, sections: Sequence[Sequence[int]]) -> Tensor:
    """The columns of the team's features that make up each agent's row, ``[n_agents, F]``; own columns come first.

    Args:
        team: all groups; each section has one block of features per agent, in the team's order.
        group: the group of the agents that get a row.
        sections: for each section, the width of one block in each group, such as
            ``[[observation_dim of each group]]``.

    >>> from ctde_kit.specs import ActionSpec
    >>> group = GroupSpec("agents", 3, 2, ActionSpec("categorical", (4,)))
    >>> own_first_columns(TeamSpec((group,)), group, [[2]]).tolist()
    [[0, 1, 2, 3, 4, 5], [2, 3, 0, 1, 4, 5], [4, 5, 0, 1, 2, 3]]
    """
    rows: list[list[int]] = [[] for _ in range(group.n_agents)]
    begin = 0
    for widths in sections:
        blocks: dict[tuple[str, int], list[int]] = {}
        for other, width in zip(team, widths, strict=True):
            for agent in range(other.n_agents):
                blocks[other.name, agent] = list(range(begin, begin + width))
                begin += width
        for agent, row in enumerate(rows):
            own_block = (group.name, agent)
            for name in [own_block, *(name for name in blocks if name != own_block)]:
                row += blocks[name]
    return torch.tensor(rows)
