"""The entropy of a policy's distribution, sampled where it has no closed form."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Distribution

from ctde_kit.protocols import SamplesEntropy


def entropy_of(dist: Distribution, n_samples: int) -> Tensor:
    """The entropy, of the distribution's batch shape; without a closed form the mean over ``n_samples`` samples.

    >>> import torch
    >>> from torch.distributions import Categorical
    >>> from ctde_kit.objectives.policy_entropy import entropy_of
    >>> entropy_of(Categorical(torch.ones(3, 2)), n_samples=1)
    tensor([0.6931, 0.6931, 0.6931])
    """
    if isinstance(dist, SamplesEntropy):
        return dist.sampled_entropy(n_samples)
    try:
        return dist.entropy()
    except NotImplementedError:
        samples = dist.rsample((n_samples,))
        return -dist.log_prob(samples).mean(0)
