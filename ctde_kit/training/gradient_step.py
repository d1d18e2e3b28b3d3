"""One optimizer step on the sum of the groups' losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from ctde_kit.graph import TraceError, report_fallback
from ctde_kit.training.compiled_step import CompiledStep, take_gradients


class GradientStep:
    """Minibatch -> loss of every group, backward, clip, one optimizer step; gives the metrics, still on the device.

    Metrics are what the losses write and ``grad_norm``, the norm before clipping; with several groups their names
    start with ``{group}/``. Each child network of a loss (actor, critic) is clipped by itself, as in the MAPPO
    authors' code.

    Args:
        losses: a ``LossModule`` for each group; entries that start with ``loss_`` are summed.
        optimizer: over the losses' parameters.
        max_grad_norm: largest norm of a network's gradient.
        compile: run loss, backward, clip and the optimizer's step as one compiled graph a shape of minibatch, where
            they can be traced, else it says in one line why not; an optimizer that cannot runs behind the graph. The
            first step of a new optimizer, which makes its state, is a plain one.
    """

    def __init__(
        self,
        losses: Mapping[str, nn.Module] | nn.ModuleDict,
        optimizer: torch.optim.Optimizer,
        max_grad_norm: float,
        *,
        compile: bool = False,
    ):
        self.losses = nn.ModuleDict(dict(losses))
        self.optimizer, self.max_grad_norm = optimizer, max_grad_norm
        self.compile = compile
        self.parameters = list(dict.fromkeys(_learnt(self.losses)))
        self._networks = {
            group: [params for child in loss.children() if (params := _learnt(child))] for group, loss in losses.items()
        }
        self._compiled: dict[tuple[torch.Size, float], CompiledStep] = {}
        self._has_stepped = False

    def __call__(self, minibatch: TensorDictBase) -> dict[str, Tensor]:
        if not self.compile:
            return self._plain(minibatch)
        if self._has_stepped or self.optimizer.state:
            self._compile(minibatch)
            return self._compiled[self._case(minibatch)](minibatch) if self.compile else self._plain(minibatch)
        example = minibatch.copy()
        metrics = self._plain(minibatch)
        self._has_stepped = True
        self._compile(example)
        return metrics

    def _plain(self, minibatch: TensorDictBase) -> dict[str, Tensor]:
        metrics, gradients = self.gradients(minibatch)
        take_gradients(self.parameters, gradients)
        self.optimizer.step()
        return metrics

    def _compile(self, minibatch: TensorDictBase) -> None:
        compiled = self._compiled.get(self._case(minibatch))
        if compiled is not None and not compiled.is_stale():
            return
        live = [*self.losses.parameters(), *self.losses.buffers()]
        try:
            self._compiled[self._case(minibatch)] = CompiledStep(
                self.gradients, self.parameters, self.optimizer, minibatch, live
            )
        except TraceError as reason:
            self.compile = False
            report_fallback("the gradient step", reason)

    def _case(self, minibatch: TensorDictBase) -> tuple[torch.Size, float]:
        return minibatch.shape, self.max_grad_norm

    def gradients(self, minibatch: TensorDictBase) -> tuple[dict[str, Tensor], list[Tensor | None]]:
        """The metrics, and the clipped gradient of each of ``parameters``; ``None`` for one that no loss uses."""
        metrics: dict[str, Tensor] = {}
        total = torch.zeros((), device=minibatch.device)
        for group, loss in self.losses.items():
            for name, value in loss(minibatch).items():
                metrics[self._prefix(group) + name] = value.detach()
                if name.startswith("loss_"):
                    total = total + value
        raw = torch.autograd.grad(total, self.parameters, allow_unused=True)
        found = {p: gradient for p, gradient in zip(self.parameters, raw, strict=True) if gradient is not None}
        for group, networks in self._networks.items():
            used = [[p for p in network if p in found] for network in networks]
            norms = [self._clip(found, network) for network in used if network]
            metrics[f"{self._prefix(group)}grad_norm"] = torch.stack(norms).square().sum().sqrt()
        return metrics, [found.get(parameter) for parameter in self.parameters]

    def _prefix(self, group: str) -> str:
        return f"{group}/" if len(self.losses) > 1 else ""

    def _clip(self, gradients: dict[nn.Parameter, Tensor], network: list[nn.Parameter]) -> Tensor:
        norm = torch.stack([gradients[p].norm() for p in network]).norm()
        factor = (self.max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
        for parameter in network:
            gradients[parameter] = gradients[parameter] * factor
        return norm

    def state_dict(self) -> dict[str, Any]:
        return {"losses": self.losses.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.losses.load_state_dict(state_dict["losses"])
        self.optimizer.load_state_dict(state_dict["optimizer"])


def _learnt(network: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]
