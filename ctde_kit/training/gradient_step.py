"""One optimizer step on the sum of the groups' losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn


class GradientStep:
    """Minibatch -> loss of every group, backward, clip, one optimizer step; gives the metrics, still on the device.

    Metrics are what the losses write and ``grad_norm``, the norm before clipping; with several groups their names
    start with ``{group}/``. Each child network of a loss (actor, critic) is clipped by itself, as in the MAPPO
    authors' code.

    Args:
        losses: a ``LossModule`` for each group; entries that start with ``loss_`` are summed.
        optimizer: over the losses' parameters.
        max_grad_norm: largest norm of a network's gradient.
    """

    def __init__(
        self, losses: Mapping[str, nn.Module] | nn.ModuleDict, optimizer: torch.optim.Optimizer, max_grad_norm: float
    ):
        self.losses = nn.ModuleDict(dict(losses))
        self.optimizer, self.max_grad_norm = optimizer, max_grad_norm
        self._networks = {
            group: [params for child in loss.children() if (params := _learnt(child))] for group, loss in losses.items()
        }

    def __call__(self, minibatch: TensorDictBase) -> dict[str, Tensor]:
        metrics: dict[str, Tensor] = {}
        total = torch.zeros((), device=minibatch.device)
        for group, loss in self.losses.items():
            prefix = f"{group}/" if len(self.losses) > 1 else ""
            for name, value in loss(minibatch).items():
                metrics[prefix + name] = value.detach()
                if name.startswith("loss_"):
                    total = total + value
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        for group, networks in self._networks.items():
            norms = [nn.utils.clip_grad_norm_(params, self.max_grad_norm) for params in networks]
            prefix = f"{group}/" if len(self.losses) > 1 else ""
            metrics[f"{prefix}grad_norm"] = torch.stack(norms).square().sum().sqrt()
        self.optimizer.step()
        return metrics

    def state_dict(self) -> dict[str, Any]:
        return {"losses": self.losses.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.losses.load_state_dict(state_dict["losses"])
        self.optimizer.load_state_dict(state_dict["optimizer"])


def _learnt(network: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]
