"""MASAC's temperature: the weight of a group's entropy bonus, learned so that the entropy stays near a target."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ctde_kit.errors import UserError
from ctde_kit.objectives.masac.own_actions import log_number_of_choices
from ctde_kit.objectives.masking import masked_mean
from ctde_kit.specs import GroupSpec


class Temperature(nn.Module):
    """The temperature alpha of one group, for all agents together or one per agent; its logarithm is learned.

    Haarnoja et al. 2019, "Soft Actor-Critic Algorithms and Applications", section 5. Its loss is
    ``log(alpha) * (H - target)``, where H is the policy's entropy, as in TorchRL's ``SACLoss`` and the authors' code;
    equation 18 of the paper has alpha in place of its logarithm.

    Args:
        group: the group's spec.
        initial: the initial alpha.
        learned: whether alpha is learned; else it keeps its initial value.
        shared: one alpha for all agents of the group; else one per agent.
        target_entropy: of one agent's policy, in nats; ``None``: minus the number of dimensions of its continuous
            action, or ``target_entropy_weight`` times the largest entropy of its allowed discrete choices.
        target_entropy_weight: the target as a share of the largest entropy, for discrete actions.
        device: where alpha is kept.

    Raises:
        UserError: for a temperature that is not above 0.
    """

    def __init__(
        self,
        group: GroupSpec,
        *,
        initial: float,
        learned: bool,
        shared: bool,
        target_entropy: float | None,
        target_entropy_weight: float,
        device: torch.device,
    ):
        super().__init__()
        if initial <= 0:
            raise UserError(f"MASACLoss: alpha_init={initial}: expected a number above 0")
        log_alpha = torch.full((1 if shared else group.n_agents, 1), math.log(initial), device=device)
        self.log_alpha = nn.Parameter(log_alpha, requires_grad=learned)
        self.group, self.target_entropy, self.target_entropy_weight = group, target_entropy, target_entropy_weight

    def forward(self) -> Tensor:
        """Alpha without a gradient, ``[n_agents, 1]``, or ``[1, 1]`` where it is shared."""
        return self.log_alpha.detach().exp()

    def loss(self, entropy: Tensor, action_mask: Tensor | None, valid: Tensor) -> Tensor:
        """The loss that the temperature minimizes, a scalar.

        Args:
            entropy: of each agent's policy, ``[*B, n_agents, 1]``.
            action_mask: which choices are allowed, bool ``[*B, n_agents, N]``; ``None`` for all.
            valid: which entries count, bool ``[*B, n_agents, 1]``.
        """
        gap = (entropy - self._target(entropy, action_mask)).detach()
        return masked_mean(self.log_alpha * gap, valid)

    def _target(self, like: Tensor, action_mask: Tensor | None) -> Tensor:
        """The target entropy, in the shape of ``like``; with fewer allowed choices it is lower."""
        action = self.group.action
        if self.target_entropy is not None:
            return torch.full_like(like, self.target_entropy)
        if not action.discrete:
            return torch.full_like(like, -float(action.vector_dim))
        largest = log_number_of_choices(action, action_mask, like.dtype)
        if isinstance(largest, Tensor):
            return self.target_entropy_weight * largest.unsqueeze(-1)
        return torch.full_like(like, self.target_entropy_weight * largest)
