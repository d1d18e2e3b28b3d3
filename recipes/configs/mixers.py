"""Mixers as configurations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import ctde_kit as ck
from ctde_kit.errors import UserError
from ctde_kit.recipes.configs.checks import CheckedConfig, check_choice, check_positive

if TYPE_CHECKING:
    from tensordict.nn import TensorDictModuleBase

    from ctde_kit.specs import TeamSpec

SEES = ("auto", "state", "team")


@dataclass
class MixerConfig(CheckedConfig):
    """A mixer of all agents' values into one value of the team; this is the base of all mixers' configurations."""

    def build(self, team: TeamSpec) -> TensorDictModuleBase | None:
        """The mixer; ``None`` for none."""
        raise NotImplementedError


@dataclass
class NoMixer(MixerConfig):
    """No mixer: every agent learns from its own reward (IQL).

    >>> from ctde_kit.recipes import MatrixTask, NoMixer, QMIXConfig
    >>> parts = QMIXConfig(algorithm="iql", task=MatrixTask(n_envs=2), mixer=NoMixer()).build()
    >>> parts.update.losses["team"].mixer is None
    True
    """

    def build(self, team: TeamSpec) -> None:
        return None


@dataclass
class VDNMixerConfig(MixerConfig):
    """VDN's mixer: the sum of the agents' values.

    >>> import ctde_kit as ck
    >>> from ctde_kit.recipes import VDNMixerConfig
    >>> team = ck.TeamSpec.from_env(ck.VmasEnv("navigation", num_envs=2, continuous_actions=False))
    >>> VDNMixerConfig().build(team).out_keys
    ['chosen_action_value']
    """

    def build(self, team: TeamSpec) -> TensorDictModuleBase:
        return ck.VDNMixer(team)


@dataclass
class QMixerConfig(MixerConfig):
    """QMIX's mixer: a monotonic network whose weights depend on the state.

    Args:
        sees: the root `state`, all observations of the `team`, or `auto`: the state where there is one.
        normalize: normalize what it sees.
        embed_dim: width of the mixing network's hidden layer.
        hypernet_cells: widths of the hypernetworks' hidden layers; [] for one linear layer.
        monotonic: weights are not negative; false is for FACMAC alone.

    >>> import ctde_kit as ck
    >>> from ctde_kit.recipes import QMixerConfig
    >>> team = ck.TeamSpec.from_env(ck.VmasEnv("navigation", num_envs=2, continuous_actions=False))
    >>> QMixerConfig(sees="team", embed_dim=16).build(team).in_keys
    [('agents', 'chosen_action_value'), ('agents', 'observation')]
    """

    sees: str = "auto"
    normalize: bool = False
    embed_dim: int = 32
    hypernet_cells: list[int] = field(default_factory=lambda: [64])
    monotonic: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("mixer.sees", self.sees, SEES)
        check_positive(**{"mixer.embed_dim": self.embed_dim, **_cells(self.hypernet_cells)})

    def build(self, team: TeamSpec) -> TensorDictModuleBase:
        state = ck.modules.mixer_state(team, self.sees, normalize=self.normalize)  # pyright: ignore[reportArgumentType]  # a checked choice
        return ck.QMixer(
            team, state, embed_dim=self.embed_dim, hypernet_cells=self.hypernet_cells, monotonic=self.monotonic
        )


@dataclass
class QPLEXMixerConfig(MixerConfig):
    """QPLEX's mixer: values and advantages, weighed by attention to state and joint action.

    Args:
        sees: the root `state`, all observations of the `team`, or `auto`: the state where there is one.
        normalize: normalize what it sees.
        n_heads: heads of the attention that weighs advantages.
        hypernet_cells: widths of the hidden layers of the networks inside.

    >>> import ctde_kit as ck
    >>> from ctde_kit.recipes import QPLEXMixerConfig
    >>> team = ck.TeamSpec.from_env(ck.VmasEnv("navigation", num_envs=2, continuous_actions=False))
    >>> QPLEXMixerConfig(sees="team", n_heads=4).build(team).in_keys
    [('agents', 'chosen_action_value'), ('agents', 'max_action_value'), ('agents', 'action'), ('agents', 'observation')]
    """

    sees: str = "auto"
    normalize: bool = False
    n_heads: int = 10
    hypernet_cells: list[int] = field(default_factory=lambda: [64])

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("mixer.sees", self.sees, SEES)
        check_positive(**{"mixer.n_heads": self.n_heads, **_cells(self.hypernet_cells)})

    def build(self, team: TeamSpec) -> TensorDictModuleBase:
        state = ck.modules.mixer_state(team, self.sees, normalize=self.normalize)  # pyright: ignore[reportArgumentType]  # a checked choice
        return ck.QPLEXMixer(team, state, n_heads=self.n_heads, hypernet_cells=self.hypernet_cells)


def check_monotonic(mixer: MixerConfig) -> None:
    """Raise ``UserError`` for a mixer whose greedy joint action is not each agent's own greedy one."""
    if isinstance(mixer, QMixerConfig) and not mixer.monotonic:
        raise UserError(
            "mixer.monotonic=false: here agents choose by their own values; leave it out, or run ctde-facmac"
        )


def _cells(widths: list[int]) -> dict[str, float | None]:
    return {f"mixer.hypernet_cells[{i}]": width for i, width in enumerate(widths)}
