"""Value normalization: running statistics of returns, in whose units a critic learns."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ctde_kit.errors import UserError
from ctde_kit.shards import sum_of_all


class ValueNorm(nn.Module):
    """A running mean and variance of returns, by which a critic's values are normalized (MAPPO).

    TorchRL's ``ValueNorm`` is an abstract base, and its ``MAPPOLoss`` normalizes target and prediction alike, which
    only rescales the loss. With this class the critic predicts normalized values, and advantages use denormalized
    ones; a mask leaves dead agents out.

    As in MAPPO's value normalization (Yu et al. 2022, section 5), the statistics are moving averages with a debiasing
    term. They are updated once per batch, with all valid entries; the authors' code updates them once per minibatch.

    Args:
        decay: weight of the past in the moving averages, a ratio in [0, 1).
        epsilon: lower bound of the variance.

    >>> import torch
    >>> from ctde_kit.modules import ValueNorm
    >>> norm = ValueNorm()
    >>> norm.update(torch.tensor([1.0, 3.0]))
    >>> norm.normalize(torch.tensor([3.0])), norm.denormalize(torch.tensor([-1.0]))
    (tensor([1.]), tensor([1.]))
    """

    def __init__(self, decay: float = 0.99, epsilon: float = 1e-4):
        super().__init__()
        self.decay, self.epsilon = decay, epsilon
        for name in ("mean_sum", "square_sum", "weight"):
            self.register_buffer(name, torch.zeros((), dtype=torch.float64))

    mean_sum: Tensor
    square_sum: Tensor
    weight: Tensor

    @torch.no_grad()
    def update(self, returns: Tensor, mask: Tensor | None = None) -> None:
        """Update the statistics with the returns where ``mask``, bool and of the same shape, is true."""
        returns = returns.to(torch.float64)
        if mask is None:
            mask = torch.ones_like(returns, dtype=torch.bool)
        if mask.shape != returns.shape:
            raise UserError(
                f"ValueNorm: expected a mask of the returns' shape {list(returns.shape)}, found {list(mask.shape)}"
            )
        count = sum_of_all(mask.sum())
        kept = returns.masked_fill(~mask, 0)
        share = torch.where(count > 0, 1 - self.decay, 0.0)
        count = count.clamp(min=1)
        self.mean_sum += share * (sum_of_all(kept.sum()) / count - self.mean_sum)
        self.square_sum += share * (sum_of_all(kept.square().sum()) / count - self.square_sum)
        self.weight += share * (1 - self.weight)

    def _moments(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        started = self.weight > 0
        weight = torch.where(started, self.weight, 1.0)
        mean = self.mean_sum / weight
        variance = (self.square_sum / weight - mean.square()).clamp(min=self.epsilon)
        scale = torch.where(started, variance, 1.0).sqrt()
        return mean.to(dtype), scale.to(dtype)

    def normalize(self, returns: Tensor) -> Tensor:
        """Returns in units of the critic's outputs."""
        mean, scale = self._moments(returns.dtype)
        return (returns - mean) / scale

    def denormalize(self, values: Tensor) -> Tensor:
        """The critic's outputs in units of returns."""
        mean, scale = self._moments(values.dtype)
        return values * scale + mean
