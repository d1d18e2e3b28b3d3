"""VDN's mixer: the sum of the agents' values."""

from __future__ import annotations

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModule
from torch import nn

from ctde_kit.keys import CHOSEN_ACTION_VALUE, Key
from ctde_kit.modules.keyword_calls import keyword_calls
from ctde_kit.modules.mixers.mixing import team_values, value_keys
from ctde_kit.specs import TeamSpec


class VDNMixer(TensorDictModule):
    """The team's value as the sum of its agents' values (Sunehag et al. 2018, eq. 1).

    TorchRL's ``VDNMixer`` sums one group; this one sums several groups and leaves dead agents out.

    Reads ``(group, "chosen_action_value")`` ``[*B, n_agents, 1]`` of every group, and ``(group, "mask")`` if agents
    die; writes ``chosen_action_value`` ``[*B, 1]`` at the root.

    Args:
        team: all groups that are mixed.

    Raises:
        UserError: for values that are missing or of another shape.

    >>> import torch
    >>> from tensordict import TensorDict
    >>> from ctde_kit.modules import VDNMixer
    >>> from ctde_kit.specs import ActionSpec, GroupSpec, TeamSpec
    >>> team = TeamSpec((GroupSpec("agents", 3, 5, ActionSpec("categorical", (4,))),))
    >>> data = TensorDict({("agents", "chosen_action_value"): torch.ones(2, 3, 1)}, [2])
    >>> VDNMixer(team)(data)["chosen_action_value"]
    tensor([[3.],
            [3.]])
    """

    in_keys: list[Key]
    out_keys: list[Key]

    def __init__(self, team: TeamSpec):
        # TorchRL's QMixerLoss takes a TensorDictModule as it is, and wraps any other module anew.
        super().__init__(nn.Identity(), in_keys=[CHOSEN_ACTION_VALUE], out_keys=[CHOSEN_ACTION_VALUE])
        self.team = team
        self.in_keys, self.out_keys = value_keys(team, [CHOSEN_ACTION_VALUE]), [CHOSEN_ACTION_VALUE]

    @keyword_calls()
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        values = team_values(tensordict, self.team, CHOSEN_ACTION_VALUE)
        return tensordict.set(CHOSEN_ACTION_VALUE, values.sum(-1, keepdim=True))
