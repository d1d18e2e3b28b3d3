"""Bounds of the mutual information between agents' actions as configurations."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import ctde_kit as ck
from ctde_kit.errors import UserError
from ctde_kit.recipes.configs.checks import CheckedConfig, check_not_negative, check_positive

if TYPE_CHECKING:
    from ctde_kit.objectives import MutualInformation
    from ctde_kit.specs import TeamSpec


@dataclass
class MutualInformationConfig(CheckedConfig):
    """The bonus for mutual information between agents' actions; this is the base of its configurations."""

    @property
    def latent_size(self) -> int:
        """Of the latent that the team shares while it trains; 0 where it shares none."""
        return 0

    def rate(self, default: float) -> float:
        """The learning rate of its networks."""
        return default

    def build(self, team: TeamSpec) -> MutualInformation | None:
        """What rewards it among the agents of ``team``; or none."""
        raise NotImplementedError


@dataclass
class NoMutualInformation(MutualInformationConfig):
    """It earns nothing, and agents share no latent: MASAC.

    >>> from ctde_kit.recipes import MASACConfig, NoMutualInformation
    >>> MASACConfig().mutual_information == NoMutualInformation()
    True
    """

    def build(self, team: TeamSpec) -> None:
        return None


@dataclass
class VariationalInformation(MutualInformationConfig):
    """A variational lower bound of the mutual information is added to agents' values (Kim et al. 2020, VM3-AC).

    The team shares a latent while it trains.

    Args:
        weight: of the bound, in units of reward per nat; 0 only measures it.
        latent_dim: size of the latent, one draw of a standard normal per step for the whole team.
        latent_samples: other latents in the estimate of an action's entropy whatever the latent.
        num_cells: widths of the hidden layers of the networks that predict one agent's action from another's.
        lr: learning rate of these networks; null for critic_lr.

    >>> from ctde_kit.recipes import MASACConfig, MatrixTask, VariationalInformation
    >>> information = VariationalInformation(weight=0.5, latent_dim=3)
    >>> parts = MASACConfig(task=MatrixTask(n_envs=2), mutual_information=information).build()
    >>> parts.policy.latent.size, parts.update.losses["team"].mutual_information.weight
    (3, 0.5)
    """

    weight: float = 0.05
    latent_dim: int = 2
    latent_samples: int = 8
    num_cells: list[int] = field(default_factory=lambda: [64, 64])
    lr: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        name = "mutual_information"
        check_not_negative(**{f"{name}.weight": self.weight, f"{name}.latent_samples": self.latent_samples})
        widths = {f"{name}.num_cells[{i}]": width for i, width in enumerate(self.num_cells)}
        check_positive(**{f"{name}.latent_dim": self.latent_dim, f"{name}.lr": self.lr, **widths})

    @property
    def latent_size(self) -> int:
        return self.latent_dim

    def rate(self, default: float) -> float:
        return self.lr or default

    def build(self, team: TeamSpec) -> MutualInformation:
        if sum(group.n_agents for group in team) < 2:
            raise UserError(
                "mutual_information=variational: a single agent learns, whose action tells of no other's; leave it out"
            )
        from torch import nn

        network = partial(ck.MultiAgentMLP, share_params=False, num_cells=self.num_cells, activation_class=nn.ReLU)
        predictors = ck.modules.ActionPredictors(team, network)
        return ck.objectives.MutualInformation(predictors, weight=self.weight, latent_samples=self.latent_samples)
