"""Weighted QMIX's weightings as configurations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

import ctde_kit as ck
from ctde_kit.errors import UserError
from ctde_kit.recipes.configs.checks import CheckedConfig, check_positive, check_ratio
from ctde_kit.recipes.configs.mixers import MixerConfig, QMixerConfig

if TYPE_CHECKING:
    from tensordict.nn import TensorDictModuleBase

    from ctde_kit.modules.networks.inputs import Input
    from ctde_kit.objectives import CentralValue
    from ctde_kit.specs import TeamSpec


@dataclass
class WeightingConfig(CheckedConfig):
    """How errors of the mixed value are weighted; this is the base of all weightings' configurations."""

    def build(self, team: TeamSpec, networks: Mapping[str, TensorDictModuleBase], state: Input) -> CentralValue | None:
        """The central value: ``networks``, one for each group that learns, and a mixer that sees ``state``; or none."""
        raise NotImplementedError


@dataclass
class NoWeighting(WeightingConfig):
    """All errors weigh the same, and there is no central value: QMIX.

    >>> from ctde_kit.recipes import NoWeighting, QMIXConfig
    >>> QMIXConfig().weighting == NoWeighting()
    True
    """

    def build(self, team: TeamSpec, networks: Mapping[str, TensorDictModuleBase], state: Input) -> None:
        return None


@dataclass
class OptimisticWeighting(WeightingConfig):
    """OW-QMIX (Rashid et al. 2020): errors of values that are too high get the weight ``alpha``, others 1.

    Args:
        alpha: the weight of errors that matter less, above 0 and at most 1.
        num_cells: widths of the hidden layers of the central value's mixer.

    >>> from ctde_kit.recipes import MatrixTask, OptimisticWeighting, QMIXConfig
    >>> parts = QMIXConfig(task=MatrixTask(n_envs=2), weighting=OptimisticWeighting(alpha=0.5)).build()
    >>> parts.update.losses["team"].central.weighting
    'optimistic'
    """

    where: ClassVar[Literal["optimistic", "central"]] = "optimistic"

    alpha: float = 0.1
    num_cells: list[int] = field(default_factory=lambda: [256, 256, 256])

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ratio(**{"weighting.alpha": self.alpha})
        widths = {f"weighting.num_cells[{i}]": width for i, width in enumerate(self.num_cells)}
        check_positive(**{"weighting.alpha": self.alpha, **widths})

    def build(self, team: TeamSpec, networks: Mapping[str, TensorDictModuleBase], state: Input) -> CentralValue:
        mixer = ck.modules.FeedForwardMixer(team, state, num_cells=self.num_cells)
        return ck.objectives.CentralValue(networks, mixer, self.where, alpha=self.alpha)


@dataclass
class CentralWeighting(OptimisticWeighting):
    """CW-QMIX (Rashid et al. 2020): errors get the weight ``alpha``, and 1 at actions that are or may be the best.

    Args:
        alpha: the weight of errors that matter less, above 0 and at most 1.
        num_cells: widths of the hidden layers of the central value's mixer.

    >>> from ctde_kit.recipes import CentralWeighting, MatrixTask, QMIXConfig
    >>> parts = QMIXConfig(task=MatrixTask(n_envs=2), weighting=CentralWeighting(alpha=0.75)).build()
    >>> parts.update.losses["team"].central.weighting
    'central'
    """

    where: ClassVar[Literal["optimistic", "central"]] = "central"


def check_weighting(weighting: WeightingConfig, mixer: MixerConfig) -> None:
    """Raise ``UserError`` where errors are weighted and the mixer is not QMIX's."""
    if not isinstance(weighting, NoWeighting) and not isinstance(mixer, QMixerConfig):
        raise UserError(
            "weighting: only errors of QMIX's value are weighted; use mixer=qmix (QMixerConfig()), or leave weighting "
            "out"
        )
