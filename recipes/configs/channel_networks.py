"""Networks in which agents talk, as configurations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

import ctde_kit as ck
from ctde_kit.errors import UserError
from ctde_kit.recipes.configs.checks import check_choice, check_positive
from ctde_kit.recipes.configs.networks import NetworkConfig, activation_class

if TYPE_CHECKING:
    from torch import nn

    from ctde_kit.modules.communication.channel_network import Channel

ENCODERS = ("mlp", "gru")


class NetworkOptions(TypedDict):
    """What every network with a channel is given beside its sizes."""

    hidden_size: int
    recurrent: bool
    num_cells: Sequence[int]
    activation_class: Callable[[], nn.Module]
    layer_norm: bool
    out_gain: float | None


@dataclass
class ChannelNetworkConfig(NetworkConfig):
    """An encoder per agent, a channel between agents, and a head per agent; the base of all such networks.

    All agents have the same weights, however many they are.

    Args:
        num_cells: widths of the encoder's layers before its output.
        activation: of the encoder.
        agent_id: append the agent's one-hot index to the input.
        normalize: normalize the input's features.
        layer_norm: normalize each hidden layer before its activation.
        out_gain: gain of an orthogonal initialization of the last layer; null for PyTorch's default.
        encoder: what each agent has in front of the channel: mlp, or gru for a memory.
        hidden_size: of the encoder's output and state, and of the channel's output.
        across_groups: for actors: agents of all groups talk, each group with an encoder and a head of its own.
    """

    encoder: str = "mlp"
    hidden_size: int = 128
    across_groups: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("encoder", self.encoder, ENCODERS)
        check_positive(hidden_size=self.hidden_size)

    def build_channel(self) -> Channel:
        """What lets agents talk: ``[*B, n_agents, hidden_size] -> [*B, n_agents, hidden_size]``."""
        raise NotImplementedError

    @property
    def recurrent(self) -> bool:
        return self.encoder == "gru"

    def encoder_options(self) -> NetworkOptions:
        """The options that networks within a group and across groups have in common."""
        return {
            "hidden_size": self.hidden_size,
            "recurrent": self.recurrent,
            "num_cells": self.num_cells,
            "activation_class": activation_class(self.activation),
            "layer_norm": self.layer_norm,
            "out_gain": self.out_gain,
        }

    def group_options(self) -> NetworkOptions:
        """The options of a network within one group.

        Raises:
            UserError: where it was to be across groups.
        """
        if self.across_groups:
            raise UserError("across_groups=true: it is for actors alone, and for ensemble_size=1; leave it out")
        return self.encoder_options()


@dataclass
class BiCNetNetwork(ChannelNetworkConfig):
    """BiCNet: agents talk through a recurrent layer over the agents, in both directions.

    Args:
        num_cells: widths of the encoder's layers before its output.
        activation: of the encoder.
        agent_id: append the agent's one-hot index to the input.
        normalize: normalize the input's features.
        layer_norm: normalize each hidden layer before its activation.
        out_gain: gain of an orthogonal initialization of the last layer; null for PyTorch's default.
        encoder: what each agent has in front of the channel: mlp, or gru for a memory.
        hidden_size: of the encoder's output and state, and of both directions together.
        across_groups: for actors: agents of all groups talk, each group with an encoder and a head of its own.
        cell: gru or lstm, of the layer over the agents.

    >>> import torch
    >>> from ctde_kit.recipes import BiCNetNetwork
    >>> network = BiCNetNetwork(num_cells=[16], hidden_size=8).build(5, 2, 3)
    >>> network(torch.zeros(4, 3, 5)).shape
    torch.Size([4, 3, 2])
    """

    cell: str = "gru"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("cell", self.cell, ("gru", "lstm"))

    def build(self, in_features: int, out_features: int, n_agents: int, /) -> nn.Module:
        options = self.group_options()
        return ck.modules.MultiAgentBiCNet(in_features, out_features, n_agents, cell=self.cell, **options)  # pyright: ignore[reportArgumentType]  # a checked choice

    def build_channel(self) -> Channel:
        return ck.modules.BidirectionalRNN(self.hidden_size, self.hidden_size // 2, self.cell)  # pyright: ignore[reportArgumentType]  # a checked choice


@dataclass
class CommNetNetwork(ChannelNetworkConfig):
    """CommNet: agents talk in rounds, in which each hears the mean of the others.

    Args:
        num_cells: widths of the encoder's layers before its output.
        activation: of the encoder.
        agent_id: append the agent's one-hot index to the input.
        normalize: normalize the input's features.
        layer_norm: normalize each hidden layer before its activation.
        out_gain: gain of an orthogonal initialization of the last layer; null for PyTorch's default.
        encoder: what each agent has in front of the channel: mlp, or gru for a memory.
        hidden_size: of the encoder's output and state, and of each round.
        across_groups: for actors: agents of all groups talk, each group with an encoder and a head of its own.
        rounds: how often agents talk.

    >>> import torch
    >>> from ctde_kit.recipes import CommNetNetwork
    >>> network = CommNetNetwork(num_cells=[16], hidden_size=8, rounds=1).build(5, 2, 3)
    >>> network(torch.zeros(4, 3, 5)).shape
    torch.Size([4, 3, 2])
    """

    rounds: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(rounds=self.rounds)

    def build(self, in_features: int, out_features: int, n_agents: int, /) -> nn.Module:
        options = self.group_options()
        return ck.modules.MultiAgentCommNet(in_features, out_features, n_agents, rounds=self.rounds, **options)

    def build_channel(self) -> Channel:
        return ck.modules.MeanMessages(self.hidden_size, self.rounds)


@dataclass
class TarMACNetwork(ChannelNetworkConfig):
    """TarMAC: agents talk in rounds, in which each chooses whom to listen to.

    Args:
        num_cells: widths of the encoder's layers before its output.
        activation: of the encoder.
        agent_id: append the agent's one-hot index to the input.
        normalize: normalize the input's features.
        layer_norm: normalize each hidden layer before its activation.
        out_gain: gain of an orthogonal initialization of the last layer; null for PyTorch's default.
        encoder: what each agent has in front of the channel: mlp, or gru for a memory.
        hidden_size: of the encoder's output and state, and of messages.
        across_groups: for actors: agents of all groups talk, each group with an encoder and a head of its own.
        signature_size: of signatures and queries.
        rounds: how often agents talk.

    >>> import torch
    >>> from ctde_kit.recipes import TarMACNetwork
    >>> network = TarMACNetwork(num_cells=[16], hidden_size=8, signature_size=4).build(5, 2, 3)
    >>> network(torch.zeros(4, 3, 5)).shape
    torch.Size([4, 3, 2])
    """

    signature_size: int = 16
    rounds: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(signature_size=self.signature_size, rounds=self.rounds)

    def build(self, in_features: int, out_features: int, n_agents: int, /) -> nn.Module:
        sizes = {"signature_size": self.signature_size, "rounds": self.rounds}
        return ck.modules.MultiAgentTarMAC(in_features, out_features, n_agents, **sizes, **self.group_options())

    def build_channel(self) -> Channel:
        return ck.modules.TargetedMessages(self.hidden_size, self.signature_size, self.rounds)
