"""QMIX's mixer: a monotonic mixing network whose weights depend on the state."""

from __future__ import annotations

from collections.abc import Sequence

from tensordict import TensorDictBase
from torch import nn

from ctde_kit.keys import CHOSEN_ACTION_VALUE
from ctde_kit.modules.keyword_calls import keyword_calls
from ctde_kit.modules.mixers.mixing import StateMixer, hypernetwork, team_values
from ctde_kit.modules.networks.inputs import Input
from ctde_kit.specs import TeamSpec


class QMixer(StateMixer):
    """The team's value as a monotonic function of its agents' values (Rashid et al. 2018, section 4).

    TorchRL's ``QMixer`` mixes one group, needs a ``state`` and has hypernetworks of fixed depth; this one mixes several
    groups, can read observations instead of a state, and knows dead agents.

    It has two layers with an ELU between them. Their weights are the absolute values of hypernetworks' outputs on the
    state; their biases are unrestricted. Reads ``(group, "chosen_action_value")`` ``[*B, n_agents, 1]`` of every group,
    ``(group, "mask")`` if agents die, and the state; writes ``chosen_action_value`` ``[*B, 1]`` at the root. A dead
    agent's value counts as zero and gets no gradient.

    Args:
        team: all groups that are mixed.
        state: what the hypernetworks see; ``None``: ``mixer_state(team)``.
        embed_dim: width of the mixing network's hidden layer.
        hypernet_cells: widths of the weight hypernetworks' hidden layers: ``()`` for one linear layer, as in the
            paper, ``(64,)`` for two.
        monotonic: weights are absolute values; otherwise the mixing is unrestricted (Peng et al. 2021, section 4.2).
            That is for critics only: greedy actions in Q-learning need a monotonic mixer.

    Raises:
        UserError: for values that are missing or of another shape.

    >>> import torch
    >>> from tensordict import TensorDict
    >>> from ctde_kit.modules import QMixer
    >>> from ctde_kit.specs import ActionSpec, GroupSpec, TeamSpec
    >>> team = TeamSpec((GroupSpec("agents", 3, 5, ActionSpec("categorical", (4,))),), state_dim=7)
    >>> data = TensorDict({("agents", "chosen_action_value"): torch.ones(2, 3, 1), "state": torch.ones(2, 7)}, [2])
    >>> QMixer(team)(data)["chosen_action_value"].shape
    torch.Size([2, 1])
    """

    def __init__(
        self,
        team: TeamSpec,
        state: Input | None = None,
        *,
        embed_dim: int = 32,
        hypernet_cells: Sequence[int] = (),
        monotonic: bool = True,
    ):
        super().__init__(team, state)
        self.monotonic, self.embed_dim = monotonic, embed_dim
        features = self.state.features
        self.weight_1 = hypernetwork(features, self.n_agents * embed_dim, hypernet_cells)
        self.bias_1 = hypernetwork(features, embed_dim, ())
        self.weight_2 = hypernetwork(features, embed_dim, hypernet_cells)
        self.bias_2 = hypernetwork(features, 1, (embed_dim,))

    @keyword_calls()
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        values = team_values(tensordict, self.team, CHOSEN_ACTION_VALUE)
        state = self.state(tensordict).squeeze(-2)
        weight_1, weight_2 = self.weight_1(state), self.weight_2(state)
        if self.monotonic:
            weight_1, weight_2 = weight_1.abs(), weight_2.abs()
        weight_1 = weight_1.unflatten(-1, (self.n_agents, self.embed_dim))
        hidden = (values.unsqueeze(-1) * weight_1).sum(-2) + self.bias_1(state)
        mixed = nn.functional.elu(hidden) * weight_2
        return tensordict.set(CHOSEN_ACTION_VALUE, mixed.sum(-1, keepdim=True) + self.bias_2(state))
