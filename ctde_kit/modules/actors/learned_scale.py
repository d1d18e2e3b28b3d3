"""The standard deviation of a Gaussian policy as a learned parameter."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ctde_kit.modules.networks.sharing import ShareParams, parameter_sets

SMALLEST = 1e-3


class LearnedScale(nn.Module):
    """Returns a location ``[*B, n_agents, D]`` unchanged, and a learned standard deviation of the same shape.

    The standard deviation does not depend on the input, as in the MAPPO authors' code for continuous actions. TorchRL's
    and BenchMARL's actors let a network output both.

    Args:
        size: D.
        n_agents: size of the agent axis.
        share_params: one set for all agents (``True``), one per agent (``False``), or the index of each agent's set.
        initial: the standard deviation at the beginning, before squashing.

    >>> import torch
    >>> from ctde_kit.modules import LearnedScale
    >>> loc, scale = LearnedScale(2, n_agents=3)(torch.zeros(5, 3, 2))
    >>> scale.shape
    torch.Size([5, 3, 2])
    """

    def __init__(self, size: int, n_agents: int, share_params: ShareParams = True, initial: float = 1.0):
        super().__init__()
        self.sets = parameter_sets(share_params, n_agents)
        self.log_scale = nn.Parameter(torch.full((max(self.sets) + 1, size), initial).log())

    def forward(self, loc: Tensor) -> tuple[Tensor, Tensor]:
        return loc, self.log_scale.exp().clamp(min=SMALLEST)[list(self.sets)].expand_as(loc)

    def for_agent(self, agent: int) -> LearnedScale:
        """The standard deviation of one agent, on the same storage."""
        index = self.sets[agent]
        scale = LearnedScale(self.log_scale.shape[-1], 1)
        scale.log_scale = nn.Parameter(self.log_scale.data[index : index + 1])
        return scale
