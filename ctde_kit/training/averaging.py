"""Parameters of like agents, averaged now and then."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class ParameterAverage:
    """Every ``every`` updates all agents' sets of each parameter become their mean; in between each learns by itself.

    The optimizer's moments, whatever it keeps in a parameter's shape, are averaged alike: the agents go on from one
    point with one velocity. Target networks are left alone: as a rule of ``UpdateWithTargets`` it stands before theirs,
    so that targets follow the averaged parameters by polyak or hard updates as they follow any others.

    Args:
        parameters: with the agents' sets along the first axis, as ``AgentLinear`` stacks them.
        optimizer: that learns them.
        every: in updates, 1 for after each one.

    >>> weight = nn.Parameter(torch.tensor([[1.0], [3.0]]))
    >>> ParameterAverage([weight], torch.optim.Adam([weight]), every=1)()
    >>> weight.tolist()
    [[2.0], [2.0]]
    """

    def __init__(self, parameters: Iterable[nn.Parameter], optimizer: torch.optim.Optimizer, every: int):
        self.parameters, self.optimizer, self.every = list(parameters), optimizer, every
        self.updates = 0

    @torch.no_grad()
    def __call__(self) -> None:
        self.updates += 1
        if self.updates % self.every:
            return
        for parameter in self.parameters:
            moments: Iterable[Any] = self.optimizer.state.get(parameter, {}).values()
            same_shape = [part for part in moments if isinstance(part, Tensor) and part.shape == parameter.shape]
            for part in [parameter, *same_shape]:
                part.copy_(part.mean(0, keepdim=True).expand_as(part))

    def state_dict(self) -> dict[str, Any]:
        """How many updates it has seen; parameters and moments are their owners' state."""
        return {"updates": self.updates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.updates = state_dict["updates"]
