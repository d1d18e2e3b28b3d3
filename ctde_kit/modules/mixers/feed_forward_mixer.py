"""The mixer of Weighted QMIX's central value: a feed-forward network of the agents' values and the state."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDictBase

from ctde_kit.keys import CHOSEN_ACTION_VALUE
from ctde_kit.modules.keyword_calls import keyword_calls
from ctde_kit.modules.mixers.mixing import StateMixer, hypernetwork, team_values
from ctde_kit.modules.networks.inputs import Input
from ctde_kit.specs import TeamSpec


class FeedForwardMixer(StateMixer):
    """The team's value as an unrestricted function of agents' values and the state (Rashid et al. 2020).

    A ReLU perceptron reads the agents' values beside the state, and a smaller one that reads the state alone is added.
    Each agent's best action need not be part of the best joint action, so it cannot choose actions: it is for the
    ``CentralValue`` of Weighted QMIX. Reads ``(group, "chosen_action_value")`` ``[*B, n_agents, 1]`` of every group,
    ``(group, "mask")`` if agents die, and the state; writes ``chosen_action_value`` ``[*B, 1]`` at the root. A dead
    agent's value counts as zero and gets no gradient.

    Args:
        team: all groups that are mixed.
        state: what it sees beside the values; ``None``: ``mixer_state(team)``.
        num_cells: widths of the hidden layers; the state's own perceptron has one layer of the first width.

    Raises:
        UserError: for values that are missing or of another shape.

    >>> import torch
    >>> from tensordict import TensorDict
    >>> from ctde_kit.modules import FeedForwardMixer
    >>> from ctde_kit.specs import ActionSpec, GroupSpec, TeamSpec
    >>> team = TeamSpec((GroupSpec("agents", 3, 5, ActionSpec("categorical", (4,))),), state_dim=7)
    >>> data = TensorDict({("agents", "chosen_action_value"): torch.ones(2, 3, 1), "state": torch.ones(2, 7)}, [2])
    >>> FeedForwardMixer(team)(data)["chosen_action_value"].shape
    torch.Size([2, 1])
    """

    def __init__(self, team: TeamSpec, state: Input | None = None, *, num_cells: Sequence[int] = (256, 256, 256)):
        super().__init__(team, state)
        features = self.state.features
        self.mixing = hypernetwork(features + self.n_agents, 1, num_cells)
        self.state_value = hypernetwork(features, 1, num_cells[:1])

    @keyword_calls()
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        values = team_values(tensordict, self.team, CHOSEN_ACTION_VALUE)
        state = self.state(tensordict).squeeze(-2)
        mixed = self.mixing(torch.cat([state, values], -1)) + self.state_value(state)
        return tensordict.set(CHOSEN_ACTION_VALUE, mixed)
