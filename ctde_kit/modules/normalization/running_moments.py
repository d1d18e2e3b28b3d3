"""Running mean and variance of vectors, and values standardized by them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ctde_kit.errors import UserError
from ctde_kit.shards import sum_of_all

# A variance below this share of the squared mean is float32's rounding error.
RESOLUTION = 1e-14


class RunningMoments(nn.Module):
    """The mean and variance of each feature over all vectors that it was ever shown; standardizes vectors by them.

    Batches are merged exactly (Chan et al. 1983), in float64, each vector with the same weight. Until the first update
    values stay as they are. A feature that never varied is only centered.

    Args:
        size: features of a vector.
        clip: largest absolute value of a standardized feature; ``None`` for no limit.

    >>> import torch
    >>> from ctde_kit.modules import RunningMoments
    >>> moments = RunningMoments(1)
    >>> moments.update(torch.tensor([[1.0], [3.0]]))
    >>> moments.update(torch.tensor([[5.0], [7.0]]))
    >>> moments.mean.item(), moments.variance.item(), moments(torch.tensor([4.0]))
    (4.0, 5.0, tensor([0.]))
    """

    count: Tensor
    mean: Tensor
    square_sum: Tensor
    shared_with_targets = True

    def __init__(self, size: int, clip: float | None = None):
        super().__init__()
        if size < 1 or (clip is not None and clip <= 0):
            raise UserError(f"RunningMoments: size={size}, clip={clip}: expected numbers above 0")
        self.size, self.clip = size, clip
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("square_sum", torch.zeros(size, dtype=torch.float64))

    @torch.no_grad()
    def update(self, values: Tensor, mask: Tensor | None = None) -> None:
        """Update the statistics with ``values`` ``[*B, size]`` where ``mask``, bool ``[*B]``, is true."""
        if values.shape[-1:] != (self.size,) or (mask is not None and mask.shape != values.shape[:-1]):
            found = list(values.shape) if mask is None else f"{list(values.shape)} with a mask {list(mask.shape)}"
            raise UserError(f"RunningMoments: expected values [*B, {self.size}] and a mask [*B], found {found}")
        values, dims = values.to(self.mean), tuple(range(values.ndim - 1))
        drop = torch.zeros_like(values[..., :1], dtype=torch.bool)
        drop = drop if mask is None else ~mask.to(drop.device).unsqueeze(-1)
        count = sum_of_all((~drop).sum().to(self.count.dtype))
        # Filled, not multiplied: dead agents' observations may be NaN, and 0 * NaN is NaN.
        mean = sum_of_all(values.masked_fill(drop, 0).sum(dims)) / count.clamp(min=1)
        square_sum = sum_of_all((values - mean).masked_fill(drop, 0).square().sum(dims))
        share, shift = count / (self.count + count).clamp(min=1), mean - self.mean
        self.square_sum += square_sum + shift.square() * self.count * share
        self.mean += shift * share
        self.count += count

    @property
    def variance(self) -> Tensor:
        """The variance of each feature, ``[size]``."""
        return self.square_sum / self.count.clamp(min=1)

    @property
    def deviation(self) -> Tensor:
        """The standard deviation of each feature, ``[size]``; 1 where it never varied."""
        variance = self.variance
        return torch.where(variance > RESOLUTION * self.mean.square(), variance, 1.0).sqrt()

    def forward(self, values: Tensor) -> Tensor:
        """Standardized ``values`` ``[*B, size]``."""
        standardized = (values - self.mean.to(values.dtype)) / self.deviation.to(values.dtype)
        if self.clip is None:
            return standardized
        bound = torch.where(self.count > 0, self.clip, math.inf).to(values.dtype)
        return torch.minimum(torch.maximum(standardized, -bound), bound)
