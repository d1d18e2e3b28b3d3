"""The latent that a team shares while it trains, so that its actions can be correlated."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torchrl.envs.utils import ExplorationType, exploration_type

from ctde_kit.errors import UserError
from ctde_kit.keys import LATENT


class TeamLatent(TensorDictModuleBase):
    """Draws the latent of a team: one standard normal vector per env and step, the same for all agents of all groups.

    Kim et al. 2020, "A Maximum Mutual Information Framework for Multi-Agent Reinforcement Learning". Policies that read
    it, such as those on ``own_observation(group, latent_dim=...)``, act as one while they train. Under
    ``ExplorationType.RANDOM``, which collectors set, it writes a draw to the root key ``latent`` ``[*B, size]``; else
    zeros, the mean, so that no agent needs to know what another one drew. A policy that runs without this module reads
    the mean, too.

    Args:
        size: of the latent.

    Raises:
        UserError: for a size below 1.

    >>> import torch
    >>> from tensordict import TensorDict
    >>> from torchrl.envs.utils import ExplorationType, set_exploration_type
    >>> from ctde_kit.modules import TeamLatent
    >>> data = TensorDict({"agents": {"observation": torch.zeros(4, 3, 5)}}, [4])
    >>> with set_exploration_type(ExplorationType.RANDOM):
    ...     TeamLatent(2)(data)["latent"].shape
    torch.Size([4, 2])
    """

    in_keys: list[NestedKey]
    out_keys: list[NestedKey]

    def __init__(self, size: int):
        super().__init__()
        if size < 1:
            raise UserError(f"TeamLatent: size={size}: expected 1 or more")
        self.size = size
        self.in_keys, self.out_keys = [], [LATENT]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        value = next(iter(tensordict.values(True, True)))
        make = torch.randn if exploration_type() == ExplorationType.RANDOM else torch.zeros
        return tensordict.set(LATENT, make(*tensordict.shape, self.size, device=value.device))
