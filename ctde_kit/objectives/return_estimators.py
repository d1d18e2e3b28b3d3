"""Objects that say which returns a value loss learns: n-step returns or TD(lambda) returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ctde_kit.errors import UserError
from ctde_kit.objectives.returns import n_step_return, td_lambda_return


class ReturnEstimator(Protocol):
    """Computes targets from next values, rewards, ``done`` and ``terminated``, all ``[*B, T, n_agents, 1]``."""

    @property
    def needs_sequences(self) -> bool:
        """Whether it looks further than one step."""
        ...

    def __call__(
        self, gamma: float, next_value: Tensor, reward: Tensor, done: Tensor, terminated: Tensor, /
    ) -> Tensor: ...


@dataclass(frozen=True)
class NStepReturn:
    """The discounted rewards of ``n`` steps and the value after them; ``n=1`` is TD(0).

    The rewards are those that the stored, exploring actions earned; nothing corrects for the difference from the
    current policy.

    >>> import torch
    >>> from ctde_kit.objectives import NStepReturn
    >>> one = torch.ones(2, 1, 1)
    >>> NStepReturn(2)(0.5, 4 * one, one, one < 0, one < 0).flatten()
    tensor([2.5000, 3.0000])
    """

    n: int = 1

    def __post_init__(self) -> None:
        if self.n < 1:
            raise UserError(f"NStepReturn: n={self.n}: expected at least 1 step")

    @property
    def needs_sequences(self) -> bool:
        return self.n > 1

    def __call__(self, gamma: float, next_value: Tensor, reward: Tensor, done: Tensor, terminated: Tensor) -> Tensor:
        return n_step_return(gamma, self.n, next_value, reward, done, terminated)


@dataclass(frozen=True)
class TDLambdaReturn:
    """The lambda-weighted mean of all n-step returns within a sequence; ``lmbda`` is the decay per step.

    >>> import torch
    >>> from ctde_kit.objectives import TDLambdaReturn
    >>> one = torch.ones(2, 1, 1)
    >>> TDLambdaReturn(0.5)(0.5, 4 * one, one, one < 0, one < 0).flatten()
    tensor([2.7500, 3.0000])
    """

    lmbda: float

    def __post_init__(self) -> None:
        if not 0 <= self.lmbda <= 1:
            raise UserError(f"TDLambdaReturn: lmbda={self.lmbda}: expected a ratio from 0 to 1")

    @property
    def needs_sequences(self) -> bool:
        return self.lmbda > 0

    def __call__(self, gamma: float, next_value: Tensor, reward: Tensor, done: Tensor, terminated: Tensor) -> Tensor:
        return td_lambda_return(gamma, self.lmbda, next_value, reward, done, terminated)
