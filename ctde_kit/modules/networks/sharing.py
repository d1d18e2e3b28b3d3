"""Which agents share parameters."""

from __future__ import annotations

from collections.abc import Sequence

from ctde_kit.errors import UserError

ShareParams = bool | Sequence[int]


def parameter_sets(share_params: ShareParams, n_agents: int) -> tuple[int, ...]:
    """The index of each agent's parameter set: all 0 when shared, 0, 1, ... when not, or the mapping given.

    Raises:
        UserError: for a mapping of another length than ``n_agents``, or whose sets are not 0, 1, ..., K-1.

    >>> parameter_sets(True, 3), parameter_sets(False, 3), parameter_sets([0, 1, 0], 3)
    ((0, 0, 0), (0, 1, 2), (0, 1, 0))
    """
    if isinstance(share_params, bool):
        return (0,) * n_agents if share_params else tuple(range(n_agents))
    mapping = tuple(int(index) for index in share_params)
    if len(mapping) != n_agents or set(mapping) != set(range(len(set(mapping)))):
        raise UserError(
            f"share_params={list(mapping)}: expected one parameter set for each of the {n_agents} agents, numbered 0, "
            "1, ... without gaps"
        )
    return mapping
