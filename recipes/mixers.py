"""Mixers as configurations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ctde_kit.recipes.checks import check_choice, check_positive

from ctde_kit.errors import UserError
from ctde_kit.modules import QMixer, QPLEXMixer, VDNMixer, mixer_state
from ctde_kit.specs import TeamSpec

SEES = ("auto", "state", "team")


@dataclass
class NoMixer:
    """Every agent learns from its own reward (IQL)."""

    _target_: str = "ctde_kit.recipes.mixers.NoMixer"

    def build(self, team: TeamSpec) -> None:
        return None


@dataclass
class VDNMixerConfig:
    """The sum of the agents' values."""

    _target_: str = "ctde_kit.recipes.mixers.VDNMixerConfig"

    def build(self, team: TeamSpec) -> VDNMixer:
        return VDNMixer(team)


@dataclass
class QMixerConfig:
    """A monotonic mixing network.

    Args:
        sees: the root `state`, all observations of the `team`, or `auto`: the state where there is one.
        normalize: normalize what it sees.
        embed_dim: width of the mixing network's hidden layer.
        hypernet_cells: widths of the hypernetworks' hidden layers; [] for one linear layer.
        monotonic: weights are not negative; false is for FACMAC alone.
    """

    sees: str = "auto"
    normalize: bool = False
    embed_dim: int = 32
    hypernet_cells: list[int] = field(default_factory=lambda: [64])
    monotonic: bool = True
    _target_: str = "ctde_kit.recipes.mixers.QMixerConfig"

    def __post_init__(self) -> None:
        check_choice("mixer.sees", self.sees, SEES)
        check_positive(**{"mixer.embed_dim": self.embed_dim, **_cells(self.hypernet_cells)})

    def build(self, team: TeamSpec) -> QMixer:
        state = mixer_state(team, self.sees, normalize=self.normalize)  # type: ignore[arg-type]
        return QMixer(
            team, state, embed_dim=self.embed_dim, hypernet_cells=self.hypernet_cells, monotonic=self.monotonic
        )


@dataclass
class QPLEXMixerConfig:
    """A duplex dueling mixer.

    Args:
        sees: the root `state`, all observations of the `team`, or `auto`: the state where there is one.
        normalize: normalize what it sees.
        n_heads: heads of the attention that weighs advantages.
        hypernet_cells: widths of the hidden layers of the networks inside.
    """

    sees: str = "auto"
    normalize: bool = False
    n_heads: int = 10
    hypernet_cells: list[int] = field(default_factory=lambda: [64])
    _target_: str = "ctde_kit.recipes.mixers.QPLEXMixerConfig"

    def __post_init__(self) -> None:
        check_choice("mixer.sees", self.sees, SEES)
        check_positive(**{"mixer.n_heads": self.n_heads, **_cells(self.hypernet_cells)})

    def build(self, team: TeamSpec) -> QPLEXMixer:
        state = mixer_state(team, self.sees, normalize=self.normalize)  # type: ignore[arg-type]
        return QPLEXMixer(team, state, n_heads=self.n_heads, hypernet_cells=self.hypernet_cells)


def check_mixes(cfg: Any, learning: TeamSpec) -> None:
    """Raise ``UserError`` where the mixer of ``cfg`` would make one team of groups that compete."""
    names = [group.name for group in learning]
    if cfg.task.groups_compete and len(names) > 1 and not isinstance(cfg.mixer, NoMixer):
        raise UserError(
            f"mixer: {', '.join(names)} compete in {cfg.task.name}, so no one value is both of theirs; use mixer=none, "
            f"or let one of them learn against another, such as opponents.{names[-1]}=random"
        )


def _cells(widths: list[int]) -> dict[str, float | None]:
    return {f"mixer.hypernet_cells[{i}]": width for i, width in enumerate(widths)}
