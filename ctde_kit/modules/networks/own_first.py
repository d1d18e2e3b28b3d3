"""In which order the agents' data is stacked."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ctde_kit.specs import GroupSpec, TeamSpec


def own_first_columns(team: TeamSpec, group: GroupSpec, sections: Sequence[Sequence[int]]) -> Tensor:
    """Where each feature of agent i's row stands in the team's: its own are the first of each section.

    Args:
        team: all groups, in whose order each section has a block an agent.
        group: whose agents the rows are of.
        sections: for each, the width of a block of each group, such as ``[[observation_dim of each group]]``.

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
            own = (group.name, agent)
            for name in [own, *(name for name in blocks if name != own)]:
                row += blocks[name]
    return torch.tensor(rows)
