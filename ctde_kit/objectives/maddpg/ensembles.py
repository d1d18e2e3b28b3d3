"""Means over the sub-policies of an ensemble, each over the transitions in which it acted."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDictBase
from torch import Tensor

from ctde_kit.entries import required_entry
from ctde_kit.objectives.maddpg.joint_actions import DeterministicActor
from ctde_kit.objectives.masking import masked_mean


def sub_policy_masks(actor: DeterministicActor, steps: TensorDictBase, mask: Tensor) -> list[Tensor]:
    """For each sub-policy, where ``mask`` is true and this sub-policy acted, bool ``[*B, T, n_agents, 1]``.

    For an actor without sub-policies the list is ``mask`` alone.
    """
    draw = actor.sub_policies
    if draw is None:
        return [mask]
    index = required_entry(steps, draw.key, "store which sub-policy acted, int64 [*B, n_agents]").unsqueeze(-1)
    return [mask & (index == k) for k in range(draw.size)]


def ensemble_mean(x: Tensor, masks: Sequence[Tensor]) -> Tensor:
    """The mean over sub-policies of the mean of ``x`` under each one's mask (Lowe et al. 2017, section 4.3).

    A sub-policy that never acted in the sample adds 0.

    >>> x, first = torch.tensor([1.0, 2.0, 9.0]), torch.tensor([True, True, False])
    >>> ensemble_mean(x, [first, ~first])
    tensor(5.2500)
    """
    return torch.stack([masked_mean(x, mask) for mask in masks]).mean()
