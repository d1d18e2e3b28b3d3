"""Sampling in proportion to priorities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchrl.data.replay_buffers import Sampler, Storage

from ctde_kit.errors import UserError

BLOCK = 1024
SMALLEST = 1e-8


@dataclass(frozen=True)
class Prioritized:
    """Sampling by priority (Schaul et al. 2016, sections 3.3 and 3.4).

    Args:
        alpha: exponent of the priorities, 0 for uniform.
        beta: exponent of the importance weights, 1 for full correction.
    """

    alpha: float = 0.6
    beta: float = 0.4

    def __post_init__(self) -> None:
        if not (self.alpha >= 0 and self.beta >= 0):
            raise UserError(f"replay.alpha={self.alpha}, replay.beta={self.beta}: expected 0 or more")


class PrioritySampler(Sampler):
    """Draws item i with probability ``p_i^alpha / sum_j p_j^alpha`` and gives its weight ``(p_i / min_j p_j)^(-beta)``.

    A TorchRL ``Sampler``. TorchRL's own ``PrioritizedSampler`` needs a C++ extension that loads with one release of
    PyTorch alone, and its trees are objects that a checkpoint cannot read back safely; this is plain tensors: sums
    over blocks of 1024 items, of which one is drawn and then searched, so that the cost hardly grows with the capacity.
    New items get the highest priority so far.

    Args:
        capacity: in items.
        prioritized: the exponents.
        device: where the priorities live.
    """

    def __init__(self, capacity: int, prioritized: Prioritized, device: torch.device | str = "cpu"):
        self.prioritized = prioritized
        n_blocks = -(-capacity // BLOCK)
        self._values = torch.zeros(n_blocks, BLOCK, dtype=torch.float64, device=device)
        self._empty()

    def _empty(self) -> None:
        self._values.zero_()
        self._sums = self._values.sum(-1)
        self._smallest = torch.full_like(self._sums, torch.inf)
        self._highest = torch.ones((), dtype=torch.float64, device=self._values.device)

    def sample(self, storage: Any, batch_size: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Indices ``[batch_size]`` and their weights, at most 1."""
        sums = self._sums.cumsum(0)
        mass = torch.rand(batch_size, dtype=torch.float64, device=sums.device) * sums[-1]
        block = torch.searchsorted(sums, mass, right=True).clamp(max=len(sums) - 1)
        within = self._values[block].cumsum(-1)
        rest = mass - (sums[block] - self._sums[block])
        inner = torch.searchsorted(within, rest.unsqueeze(-1), right=True).squeeze(-1).clamp(max=BLOCK - 1)
        # Rounding may step past the last item; every item before it has a priority above zero.
        index = (block * BLOCK + inner).clamp(max=len(storage) - 1)
        share = self._values.flatten()[index] / self._smallest.min()
        return index, {"priority_weight": share.pow(-self.prioritized.beta).float()}

    def extend(self, index: Tensor) -> None:
        """Give new items the highest priority so far."""
        self.update_priority(index, self._highest)

    def update_priority(self, index: Any, priority: Any, *, storage: Storage | None = None) -> None:
        """Set the priorities of the items ``index`` ``[n]``: ``[n]``, or one for all."""
        priority = torch.as_tensor(priority, dtype=torch.float64, device=self._values.device).detach()
        index = torch.as_tensor(index, device=self._values.device)
        self._highest = torch.maximum(self._highest, priority.max())
        self._write(index, (priority + SMALLEST).pow(self.prioritized.alpha))

    def _write(self, index: Tensor, values: Tensor) -> None:
        self._values.view(-1)[index] = values
        block = index // BLOCK
        rows = self._values[block]
        self._sums[block] = rows.sum(-1)
        self._smallest[block] = torch.where(rows > 0, rows, torch.inf).amin(-1)

    def state_dict(self) -> dict[str, Any]:
        return {"values": self._values.clone(), "sums": self._sums.clone(), "highest": self._highest.clone()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._values.copy_(state_dict["values"])
        self._sums.copy_(state_dict["sums"])
        self._smallest = torch.where(self._values > 0, self._values, torch.inf).amin(-1)
        self._highest = state_dict["highest"].to(self._values.device, copy=True)

    def dumps(self, path: Any) -> None:
        """TorchRL's way to a file: not used, ``state_dict`` is."""
        torch.save(self.state_dict(), f"{path}.pt")

    def loads(self, path: Any) -> None:
        """Read what ``dumps`` wrote."""
        self.load_state_dict(torch.load(f"{path}.pt", weights_only=True))
