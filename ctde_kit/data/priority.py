"""Prioritized sampling: items are drawn in proportion to their priorities."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torchrl.data.replay_buffers import Sampler, Storage

from ctde_kit.errors import UserError
from ctde_kit.protocols import StateDict

# Items per block of the two-level sum.
BLOCK = 1024
# Added to every priority, so that items without an error are still drawn.
SMALLEST = 1e-8


@dataclass(frozen=True)
class Prioritized:
    """The exponents of prioritized sampling (Schaul et al. 2016, sections 3.3 and 3.4).

    Args:
        alpha: exponent of the priorities; 0 samples uniformly.
        beta: exponent of the importance weights; 1 corrects the bias of the sampling fully.

    >>> import torch
    >>> from tensordict import TensorDict
    >>> import ctde_kit as ck
    >>> from ctde_kit.data import Prioritized, Transitions
    >>> replay = ck.Replay(Transitions(), capacity=100, batch_size=5, prioritized=Prioritized(alpha=0.6, beta=0.4))
    >>> replay.extend(TensorDict({"t": torch.zeros(2, 6)}, [2, 6]))
    >>> replay.sample()["priority_weight"]  # all steps are new, and so have the same priority
    tensor([1., 1., 1., 1., 1.])
    """

    alpha: float = 0.6
    beta: float = 0.4

    def __post_init__(self) -> None:
        if not (self.alpha >= 0 and self.beta >= 0):
            raise UserError(f"Prioritized: alpha={self.alpha}, beta={self.beta}: expected 0 or more")


class PrioritySampler(Sampler):
    """A TorchRL ``Sampler`` that draws item i with probability ``P_i = p_i^alpha / sum_j p_j^alpha``.

    Each sampled item gets the importance weight ``(P_i / min_j P_j)^(-beta) = (p_i / min_j p_j)^(-alpha * beta)``,
    which is at most 1. New items get the highest priority so far.

    TorchRL's own ``PrioritizedSampler`` needs a C++ extension that loads with a single release of PyTorch, and its
    trees are objects that a checkpoint cannot load safely. This sampler consists of tensors: sums over blocks of 1024
    items; one block is drawn and then searched, so that the cost hardly grows with the capacity.

    Args:
        capacity: number of items.
        prioritized: the exponents.
        device: where the priorities are stored.

    >>> import torch
    >>> from ctde_kit.data import Prioritized, PrioritySampler
    >>> sampler = PrioritySampler(4, Prioritized(alpha=1.0, beta=0.5))
    >>> sampler.extend(torch.arange(4))
    >>> sampler.update_priority(torch.arange(3), torch.zeros(3))
    >>> sampler.sample(range(4), batch_size=3)[0]
    tensor([3, 3, 3])
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

    def sample(self, storage: Sized, batch_size: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Indices ``[batch_size]`` of the drawn items, and their ``priority_weight``, at most 1."""
        sums = self._sums.cumsum(0)
        mass = torch.rand(batch_size, dtype=torch.float64, device=sums.device) * sums[-1]
        block = torch.searchsorted(sums, mass, right=True).clamp(max=len(sums) - 1)
        within = self._values[block].cumsum(-1)
        rest = mass - (sums[block] - self._sums[block])
        inner = torch.searchsorted(within, rest.unsqueeze(-1), right=True).squeeze(-1).clamp(max=BLOCK - 1)
        # Rounding may lead past the last item; every item before it has a priority above zero.
        index = (block * BLOCK + inner).clamp(max=len(storage) - 1)
        share = self._values.flatten()[index] / self._smallest.min()
        return index, {"priority_weight": share.pow(-self.prioritized.beta).float()}

    def extend(self, index: Tensor) -> None:
        """Give the new items ``index`` ``[n]`` the highest priority so far."""
        self.update_priority(index, self._highest)

    def update_priority(self, index: Tensor | int, priority: Tensor | float, *, storage: Storage | None = None) -> None:
        """Set the priorities of the items ``index`` ``[n]``, to values ``[n]`` or to one value for all of them."""
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

    def state_dict(self) -> StateDict:
        """Copies of the priorities, their sums over blocks, and the highest priority so far."""
        return {"values": self._values.clone(), "sums": self._sums.clone(), "highest": self._highest.clone()}

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Restore what ``state_dict`` returned."""
        self._values.copy_(state_dict["values"])
        self._sums.copy_(state_dict["sums"])
        self._smallest = torch.where(self._values > 0, self._values, torch.inf).amin(-1)
        self._highest = state_dict["highest"].to(self._values.device, copy=True)

    def dumps(self, path: str | Path) -> None:
        """Write the state to a file; TorchRL requires the method, the kit's checkpoints use ``state_dict``."""
        torch.save(self.state_dict(), f"{path}.pt")

    def loads(self, path: str | Path) -> None:
        """Restore what ``dumps`` wrote."""
        self.load_state_dict(torch.load(f"{path}.pt", weights_only=True))
