"""Networks in which agents talk, as configurations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ctde_kit.recipes.checks import check_choice, check_positive
from ctde_kit.recipes.networks import ACTIVATIONS, activation_class
from torch import nn

from ctde_kit.errors import UserError
from ctde_kit.modules import (
    BidirectionalRNN,
    MeanMessages,
    MultiAgentBiCNet,
    MultiAgentCommNet,
    MultiAgentTarMAC,
    TargetedMessages,
)

ENCODERS = ("mlp", "gru")


@dataclass
class BiCNetNetwork:
    """A recurrent layer over the agents, in both directions.

    Args:
        encoder: what each agent has in front: mlp, or gru for a memory.
        hidden_size: of the encoder's output and state, and of both directions together.
        num_cells: widths of the encoder's layers before.
        cell: gru or lstm, of the layer over the agents.
        activation: of the encoder.
        across_groups: of actors: agents of all groups talk, each group with an encoder and a head of its own.
        agent_id: as for the perceptron, like what follows; all agents have the same weights.
    """

    encoder: str = "mlp"
    hidden_size: int = 128
    num_cells: list[int] = field(default_factory=lambda: [128])
    cell: str = "gru"
    activation: str = "tanh"
    across_groups: bool = False
    agent_id: bool = False
    normalize: bool = False
    layer_norm: bool = False
    out_gain: float | None = None
    _target_: str = "ctde_kit.recipes.channels.BiCNetNetwork"

    def __post_init__(self) -> None:
        _check(self)
        check_choice("cell", self.cell, ("gru", "lstm"))

    @property
    def share_params(self) -> bool:
        """All agents have the same weights, however many they are."""
        return True

    def build(self, in_features: int, out_features: int, n_agents: int) -> nn.Module:
        options = _options(self)
        return MultiAgentBiCNet(in_features, out_features, n_agents, cell=self.cell, **options)  # type: ignore[arg-type]

    def build_channel(self) -> nn.Module:
        """What agents of all groups share."""
        return BidirectionalRNN(self.hidden_size, self.hidden_size // 2, self.cell)  # type: ignore[arg-type]


@dataclass
class CommNetNetwork:
    """Rounds in which agents hear the mean of the others.

    Args:
        encoder: what each agent has in front: mlp, or gru for a memory.
        hidden_size: of the encoder's output and state, and of each round.
        num_cells: widths of the encoder's layers before.
        rounds: how often agents talk.
        activation: of the encoder.
        across_groups: of actors: agents of all groups talk, each group with an encoder and a head of its own.
        agent_id: as for the perceptron, like what follows; all agents have the same weights.
    """

    encoder: str = "mlp"
    hidden_size: int = 128
    num_cells: list[int] = field(default_factory=lambda: [128])
    rounds: int = 2
    activation: str = "tanh"
    across_groups: bool = False
    agent_id: bool = False
    normalize: bool = False
    layer_norm: bool = False
    out_gain: float | None = None
    _target_: str = "ctde_kit.recipes.channels.CommNetNetwork"

    def __post_init__(self) -> None:
        _check(self)
        check_positive(rounds=self.rounds)

    @property
    def share_params(self) -> bool:
        """All agents have the same weights, however many they are."""
        return True

    def build(self, in_features: int, out_features: int, n_agents: int) -> nn.Module:
        return MultiAgentCommNet(in_features, out_features, n_agents, rounds=self.rounds, **_options(self))

    def build_channel(self) -> nn.Module:
        """What agents of all groups share."""
        return MeanMessages(self.hidden_size, self.rounds)


@dataclass
class TarMACNetwork:
    """Rounds in which agents choose whom to listen to.

    Args:
        encoder: what each agent has in front: mlp, or gru for a memory.
        hidden_size: of the encoder's output and state, and of messages.
        num_cells: widths of the encoder's layers before.
        signature_size: of signatures and queries.
        rounds: how often agents talk.
        activation: of the encoder.
        across_groups: of actors: agents of all groups talk, each group with an encoder and a head of its own.
        agent_id: as for the perceptron, like what follows; all agents have the same weights.
    """

    encoder: str = "mlp"
    hidden_size: int = 128
    num_cells: list[int] = field(default_factory=lambda: [128])
    signature_size: int = 16
    rounds: int = 2
    activation: str = "tanh"
    across_groups: bool = False
    agent_id: bool = False
    normalize: bool = False
    layer_norm: bool = False
    out_gain: float | None = None
    _target_: str = "ctde_kit.recipes.channels.TarMACNetwork"

    def __post_init__(self) -> None:
        _check(self)
        check_positive(signature_size=self.signature_size, rounds=self.rounds)

    @property
    def share_params(self) -> bool:
        """All agents have the same weights, however many they are."""
        return True

    def build(self, in_features: int, out_features: int, n_agents: int) -> nn.Module:
        sizes = {"signature_size": self.signature_size, "rounds": self.rounds}
        return MultiAgentTarMAC(in_features, out_features, n_agents, **sizes, **_options(self))

    def build_channel(self) -> nn.Module:
        """What agents of all groups share."""
        return TargetedMessages(self.hidden_size, self.signature_size, self.rounds)


Channel = BiCNetNetwork | CommNetNetwork | TarMACNetwork


def _check(config: Channel) -> None:
    check_choice("encoder", config.encoder, ENCODERS)
    check_choice("activation", config.activation, ACTIVATIONS)
    sizes = {f"num_cells[{i}]": cells for i, cells in enumerate(config.num_cells)}
    check_positive(hidden_size=config.hidden_size, **sizes)


def _options(config: Channel) -> dict[str, Any]:
    if config.across_groups:
        raise UserError("across_groups=true: it is for actors alone, and for ensemble_size=1; leave it out")
    return encoder_options(config)


def encoder_options(config: Channel) -> dict[str, Any]:
    """What channels within a group and across groups have alike."""
    return {
        "hidden_size": config.hidden_size,
        "recurrent": config.encoder == "gru",
        "num_cells": config.num_cells,
        "activation_class": activation_class(config.activation),
        "layer_norm": config.layer_norm,
        "out_gain": config.out_gain,
    }
