"""Networks that compute some agents alone, where several learners share the agents of one batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from torch import nn

from ctde_kit.protocols import ComputesSomeAgents
from ctde_kit.shards import own_agents
from ctde_kit.specs import GroupSpec


@contextlib.contextmanager
def computing_own_agents(networks: Iterable[tuple[GroupSpec, nn.Module]]) -> Iterator[None]:
    """Inside the block networks compute this learner's agents, and give 0 for those of other learners.

    Without other learners nothing changes.

    Args:
        networks: of which nobody here needs what they give for the agents of other learners, and their groups.
    """
    restricted = []
    for group, network in networks:
        own = own_agents(group.name)
        # Not what is inside of it, whose rows may be other agents than its own.
        if own is not None and isinstance(network, ComputesSomeAgents):
            network.compute_only(own)
            restricted.append(network)
    try:
        yield
    finally:
        for network in restricted:
            network.compute_only(None)
