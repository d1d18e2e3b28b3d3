"""The exploration of COMA: a policy that leaves no allowed action out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ctde_kit.errors import UserError
from ctde_kit.modules.actors.distributions import MaskedCategorical
from ctde_kit.specs import GroupSpec


class EpsilonFloor(nn.Module):
    """Mixes an agent's softmax policy with a uniform choice: ``(1 - epsilon) softmax(z)_u + epsilon / |U|``.

    Foerster et al. 2018, "Counterfactual Multi-Agent Policy Gradients", section 5; U are the actions that are allowed.
    The mixture is the policy of the actor that holds it: actions are sampled from it, and its log-probabilities and
    entropy are those that losses see. The greedy action is that of the softmax. ``epsilon`` is a buffer, so it is saved
    with the actor, and a schedule may change it.

    Args:
        group: the group's spec.
        epsilon: the share of the uniform choice, from 0 to 1.

    Raises:
        UserError: where actions are neither categorical nor one-hot, or for an ``epsilon`` outside 0 to 1.

    >>> import torch
    >>> from ctde_kit.modules import EpsilonFloor
    >>> from ctde_kit.specs import ActionSpec, GroupSpec
    >>> floor = EpsilonFloor(GroupSpec("agents", 2, 5, ActionSpec("categorical", (2,))), epsilon=0.5)
    >>> floor.distribution(torch.tensor([[9.0, -9.0], [0.0, 0.0]])).probs
    tensor([[0.7500, 0.2500],
            [0.5000, 0.5000]])
    """

    epsilon: Tensor

    def __init__(self, group: GroupSpec, epsilon: float):
        super().__init__()
        group.check_one_choice("COMA")
        if not 0 <= epsilon <= 1:
            raise UserError(f"EpsilonFloor: epsilon={epsilon}: expected a ratio from 0 to 1")
        self.one_hot = group.action.kind == "one_hot"
        self.register_buffer("epsilon", torch.tensor(float(epsilon)))

    def distribution(self, logits: Tensor, mask: Tensor | None = None) -> MaskedCategorical:
        """The policy, from logits and the mask of allowed actions, each ``[*B, n_agents, A]``."""
        return MaskedCategorical(logits, mask, self.one_hot, self.epsilon)
