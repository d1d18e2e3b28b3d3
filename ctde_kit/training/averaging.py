"""Periodic averaging of the agents' unshared parameters."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ctde_kit.protocols import StateDict


class ParameterAverage:
    """Replaces all agents' copies of each parameter by their mean every ``every`` gradient steps.

    Between averages each agent's copy is trained by itself. The optimizer's moments (all of its tensors of a
    parameter's shape) are averaged in the same way, so that all agents continue from the same optimizer state. Target
    networks are not averaged: among the rules of ``UpdateWithTargets`` this one stands before those of the target
    networks, which then follow the averaged parameters.

    Args:
        parameters: parameters with one slice per agent along the first axis, as ``AgentLinear`` stacks them.
        optimizer: the optimizer of these parameters.
        every: number of gradient steps between averages; 1 averages after each step.

    >>> import torch
    >>> from torch import nn
    >>> from ctde_kit.training import ParameterAverage
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
            moments: Iterable[object] = self.optimizer.state.get(parameter, {}).values()
            same_shape = [
                moment for moment in moments if isinstance(moment, Tensor) and moment.shape == parameter.shape
            ]
            for tensor in [parameter, *same_shape]:
                tensor.copy_(tensor.mean(0, keepdim=True).expand_as(tensor))

    def state_dict(self) -> StateDict:
        """The number of gradient steps so far; parameters and moments are saved by their owners."""
        return {"updates": self.updates}

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Restore what ``state_dict`` returned."""
        self.updates = state_dict["updates"]
