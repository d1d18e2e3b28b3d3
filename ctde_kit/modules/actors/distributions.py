"""Action distributions; an action has the same log-probability when it is sampled and when it is evaluated again."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, Normal
from torch.distributions.constraints import Constraint

from ctde_kit.specs import one_hot

_INSIDE = 1 - 1e-6


class TanhNormal(Distribution):
    """A Gaussian squashed by tanh into ``[low, high]``, independent along the last dimension.

    TorchRL's ``TanhNormal`` scores a sample by the Gaussian value it came from, but a stored action by the inverse of
    its rounded value: where tanh saturates, PPO's first ratio is not 1. Here both use the action.

    Args:
        loc: location before squashing, ``[*B, D]``.
        scale: standard deviation before squashing, ``[*B, D]``.
        low, high: bounds, broadcast to ``[*B, D]``.

    >>> import torch
    >>> from ctde_kit.modules import TanhNormal
    >>> dist = TanhNormal(torch.zeros(2), torch.ones(2), torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 4.0]))
    >>> dist.deterministic_sample
    tensor([0., 2.])
    """

    arg_constraints: dict[str, Constraint] = {}  # noqa: RUF012
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor, low: Tensor | float = -1.0, high: Tensor | float = 1.0):
        self.base = Normal(loc, scale, validate_args=False)
        self.low = torch.as_tensor(low, dtype=loc.dtype, device=loc.device)
        self.high = torch.as_tensor(high, dtype=loc.dtype, device=loc.device)
        self.half = (self.high - self.low) / 2
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=False)

    def squash(self, x: Tensor) -> Tensor:
        """The action that has the unsquashed value ``x``."""
        action = self.low + self.half * (x.tanh() + 1)
        return torch.minimum(torch.maximum(action, self.low), self.high)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.squash(self.base.rsample(torch.Size(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        x = ((value - self.low) / self.half - 1).clamp(-_INSIDE, _INSIDE).atanh()
        return (self.base.log_prob(x) - _log_slope(x) - self.half.log()).sum(-1)

    def sampled_entropy(self, n_samples: int = 1) -> Tensor:
        """The entropy ``[*B]``: the Gaussian's in closed form, plus the mean over samples of what squashing adds.

        It uses the samples' unsquashed values. The mean of ``-log_prob(rsample())`` would use rounded
        actions: where tanh saturates, its gradient would drive the location further out.
        """
        x = self.base.rsample(torch.Size((n_samples,)))
        return (self.base.entropy() + _log_slope(x).mean(0) + self.half.log()).sum(-1)

    def rsample_unsquashed(self) -> Tensor:
        """A sample ``[*B, D]`` before squashing, with a gradient."""
        return self.base.rsample()

    def log_prob_of_unsquashed(self, x: Tensor) -> Tensor:
        """The log-probability ``[*B]`` of the action that has the unsquashed value ``x``.

        Where tanh saturates, the action alone no longer tells its unsquashed value.
        """
        return (self.base.log_prob(x) - _log_slope(x) - self.half.log()).sum(-1)

    @property
    def deterministic_sample(self) -> Tensor:
        """The squashed location, the greedy action."""
        return self.squash(self.base.loc)

    @property
    def mode(self) -> Tensor:
        return self.deterministic_sample


def _log_slope(x: Tensor) -> Tensor:
    """The logarithm of the derivative of tanh."""
    return 2 * (math.log(2) - x - torch.nn.functional.softplus(-2 * x))


class MaskedCategorical(Distribution):
    """A choice among N actions, of which a mask says which are allowed.

    Where nothing is allowed (for a dead agent), the choice is always 0, the no-op, with log-probability 0: no infinity
    or NaN leaves this class. TorchRL's ``MaskedCategorical`` gives NaN there.

    Args:
        logits: ``[*B, N]``.
        mask: bool ``[*B, N]``; ``None`` if all actions are allowed.
        one_hot: actions are one-hot ``[*B, N]`` instead of indices ``[*B]``.
        epsilon: the share of a uniform choice among the allowed actions: none has a probability below ``epsilon`` over
            their number (Foerster et al. 2018, "Counterfactual Multi-Agent Policy Gradients", section 5); ``None`` for
            the softmax of the logits alone.

    >>> import torch
    >>> from ctde_kit.modules import MaskedCategorical
    >>> dist = MaskedCategorical(torch.zeros(3), torch.tensor([False, True, False]))
    >>> dist.sample(), dist.log_prob(torch.tensor(1))
    (tensor(1), tensor(0.))
    """

    arg_constraints: dict[str, Constraint] = {}  # noqa: RUF012

    def __init__(
        self, logits: Tensor, mask: Tensor | None = None, one_hot: bool = False, epsilon: Tensor | None = None
    ):
        allowed = None
        if mask is not None:
            no_op = torch.zeros_like(mask)
            no_op[..., 0] = True
            allowed = torch.where(mask.any(-1, keepdim=True), mask, no_op)
            logits = logits.masked_fill(~allowed, torch.finfo(logits.dtype).min)
        self._scores = logits
        if epsilon is not None:
            logits = _with_floor(logits, allowed, epsilon.to(logits.dtype))
        self.base = Categorical(logits=logits, validate_args=False)
        self.one_hot = one_hot
        event_shape = logits.shape[-1:] if one_hot else torch.Size()
        super().__init__(logits.shape[:-1], event_shape, validate_args=False)

    @property
    def logits(self) -> Tensor:
        return self.base.logits

    @property
    def probs(self) -> Tensor:
        """The probability of each action ``[*B, N]``, 0 where it is not allowed."""
        return self.base.probs

    def _encode(self, index: Tensor) -> Tensor:
        return one_hot(index, self.base.logits.shape[-1]).long() if self.one_hot else index

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self._encode(self.base.sample(torch.Size(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        return self.base.log_prob(value.int().argmax(-1) if self.one_hot else value)

    def entropy(self) -> Tensor:
        return self.base.entropy()

    @property
    def deterministic_sample(self) -> Tensor:
        return self._encode(self._scores.argmax(-1))

    @property
    def mode(self) -> Tensor:
        return self.deterministic_sample


def _with_floor(logits: Tensor, allowed: Tensor | None, epsilon: Tensor) -> Tensor:
    """The logits of the softmax mixed with a uniform choice among what is ``allowed``."""
    count = logits.new_tensor(logits.shape[-1]) if allowed is None else allowed.sum(-1, keepdim=True).to(logits.dtype)
    mixed = torch.logaddexp(logits.log_softmax(-1) + (-epsilon).log1p(), epsilon.log() - count.log())
    return mixed if allowed is None else mixed.masked_fill(~allowed, torch.finfo(logits.dtype).min)


class MaskedMultiCategorical(Distribution):
    """Several independent choices: actions int ``[*B, K]``, log-probability and entropy summed over them.

    Args:
        logits: ``[*B, sum(sizes)]``.
        sizes: how many values each choice has.
        mask: bool ``[*B, sum(sizes)]``; ``None`` if all actions are allowed.

    >>> import torch
    >>> from ctde_kit.modules import MaskedMultiCategorical
    >>> MaskedMultiCategorical(torch.zeros(5), (2, 3)).sample().shape
    torch.Size([2])
    """

    arg_constraints: dict[str, Constraint] = {}  # noqa: RUF012

    def __init__(self, logits: Tensor, sizes: Sequence[int], mask: Tensor | None = None):
        masks = [None] * len(sizes) if mask is None else mask.split(list(sizes), -1)
        self.choices = [
            MaskedCategorical(part, part_mask)
            for part, part_mask in zip(logits.split(list(sizes), -1), masks, strict=True)
        ]
        super().__init__(logits.shape[:-1], torch.Size([len(sizes)]), validate_args=False)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return torch.stack([choice.sample(sample_shape) for choice in self.choices], -1)

    def log_prob(self, value: Tensor) -> Tensor:
        return sum(
            (choice.log_prob(part) for choice, part in zip(self.choices, value.unbind(-1), strict=True)),
            start=torch.zeros((), device=value.device),
        )

    def entropy(self) -> Tensor:
        return torch.stack([choice.entropy() for choice in self.choices]).sum(0)

    @property
    def deterministic_sample(self) -> Tensor:
        return torch.stack([choice.deterministic_sample for choice in self.choices], -1)

    @property
    def mode(self) -> Tensor:
        return self.deterministic_sample
