"""The objective of agents whose policy is an ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor

from ctde_kit.objectives.masking import masked_mean, required_entry


def replays_of(actor: Any, steps: TensorDictBase, mask: Tensor) -> list[Tensor]:
    """Each sub-policy's own part of a sample, bool ``[*B, T, n_agents, 1]``: what counts, and was done by it.

    For an actor without sub-policies it is ``mask`` alone.
    """
    draw = actor.sub_policies
    if draw is None:
        return [mask]
    index = required_entry(steps, draw.key, "store which sub-policy acted, int64 [*B, n_agents]").unsqueeze(-1)
    return [mask & (index == k) for k in range(draw.size)]


def ensemble_mean(x: Tensor, replays: Sequence[Tensor]) -> Tensor:
    """The mean over sub-policies of the mean of ``x`` over each one's own part (Lowe et al. 2017, section 4.3).

    A sub-policy of which the sample has nothing adds nothing.

    >>> x, first = torch.tensor([1.0, 2.0, 9.0]), torch.tensor([True, True, False])
    >>> ensemble_mean(x, [first, ~first])
    tensor(5.2500)
    """
    return torch.stack([masked_mean(x, replay) for replay in replays]).mean()
