"""The kinds of returns that value networks learn, as configurations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import ctde_kit as ck
from ctde_kit.recipes.configs.checks import CheckedConfig, check_positive, check_ratio

if TYPE_CHECKING:
    from ctde_kit.objectives import NStepReturn, TDLambdaReturn


@dataclass
class ReturnConfig(CheckedConfig):
    """The form of the returns that values learn; this is the base of all such configurations."""

    def build(self) -> NStepReturn | TDLambdaReturn:
        """The estimator."""
        raise NotImplementedError


@dataclass
class NStepReturns(ReturnConfig):
    """Values learn n-step returns: the rewards of n steps, then the value of the state after them.

    Args:
        n: steps; 1 for TD(0).

    >>> from ctde_kit.recipes import NStepReturns, QMIXConfig
    >>> QMIXConfig(returns=NStepReturns(n=3)).returns.build()
    NStepReturn(n=3)
    """

    n: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(**{"returns.n": self.n})

    def build(self) -> NStepReturn:
        return ck.objectives.NStepReturn(self.n)


@dataclass
class TDLambdaReturns(ReturnConfig):
    """Values learn TD(lambda) returns: the lambda-weighted mean of all n-step returns within a sequence.

    Args:
        lmbda: decay of the weights per step.

    >>> from ctde_kit.recipes import PQNConfig, TDLambdaReturns
    >>> PQNConfig(returns=TDLambdaReturns(lmbda=0.65)).returns.build()
    TDLambdaReturn(lmbda=0.65)
    """

    lmbda: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ratio(**{"returns.lmbda": self.lmbda})

    def build(self) -> TDLambdaReturn:
        return ck.objectives.TDLambdaReturn(self.lmbda)
