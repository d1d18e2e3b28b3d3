"""Networks as configurations that build themselves once the sizes are known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from ctde_kit.recipes.checks import check_choice, check_positive
from torch import nn

from ctde_kit.errors import UserError
from ctde_kit.modules import MultiAgentGRU, MultiAgentMLP


class NetworkConfig(Protocol):
    """What recipes use of a network's configuration, such as ``MLPNetwork``."""

    @property
    def share_params(self) -> Any:
        """Which agents have the same weights."""
        ...

    @property
    def agent_id(self) -> bool:
        """Whether its input ends with the agent's index."""
        ...

    @property
    def normalize(self) -> bool:
        """Whether its input's features are normalized."""
        ...

    def build(self, in_features: int, out_features: int, n_agents: int, /) -> nn.Module:
        """The network."""
        ...


ACTIVATIONS = ("tanh", "relu", "elu", "gelu", "silu")


@dataclass
class MLPNetwork:
    """A perceptron over the agent axis.

    Args:
        num_cells: widths of the hidden layers.
        activation: between them.
        share_params: true, false, or the parameter set of each agent, such as [0,0,1].
        agent_id: append the agent's one-hot index to the input.
        normalize: normalize the input's features.
        layer_norm: normalize each hidden layer before its activation.
        out_gain: gain of an orthogonal initialization of the last layer; null for PyTorch's default.
    """

    num_cells: list[int] = field(default_factory=lambda: [256, 256])
    activation: str = "tanh"
    share_params: Any = True
    agent_id: bool = False
    normalize: bool = False
    layer_norm: bool = False
    out_gain: float | None = None
    _target_: str = "ctde_kit.recipes.networks.MLPNetwork"

    def __post_init__(self) -> None:
        check_choice("activation", self.activation, ACTIVATIONS)
        check_share_params(self.share_params)
        check_positive(**{f"num_cells[{i}]": cells for i, cells in enumerate(self.num_cells)})

    def build(self, in_features: int, out_features: int, n_agents: int) -> nn.Module:
        return MultiAgentMLP(
            in_features,
            out_features,
            n_agents,
            share_params=self.share_params,
            num_cells=self.num_cells,
            activation_class=activation_class(self.activation),
            layer_norm=self.layer_norm,
            out_gain=self.out_gain,
        )


@dataclass
class GRUNetwork:
    """An encoder and a GRU over the agent axis.

    Args:
        hidden_size: of the GRU's state.
        num_cells: widths of the encoder's layers.
        activation: of the encoder.
        share_params: as for the perceptron, like what follows.
    """

    hidden_size: int = 128
    num_cells: list[int] = field(default_factory=lambda: [128])
    activation: str = "tanh"
    share_params: Any = True
    agent_id: bool = False
    normalize: bool = False
    layer_norm: bool = False
    out_gain: float | None = None
    _target_: str = "ctde_kit.recipes.networks.GRUNetwork"

    def __post_init__(self) -> None:
        check_choice("activation", self.activation, ACTIVATIONS)
        check_share_params(self.share_params)
        check_positive(hidden_size=self.hidden_size, **{f"num_cells[{i}]": n for i, n in enumerate(self.num_cells)})

    def build(self, in_features: int, out_features: int, n_agents: int) -> nn.Module:
        return MultiAgentGRU(
            in_features,
            out_features,
            n_agents,
            share_params=self.share_params,
            hidden_size=self.hidden_size,
            num_cells=self.num_cells,
            activation_class=activation_class(self.activation),
            layer_norm=self.layer_norm,
            out_gain=self.out_gain,
        )


def check_share_params(value: Any) -> None:
    """Raise ``UserError`` unless ``value`` is true, false or a list of whole numbers."""
    is_mapping = isinstance(value, (list, tuple)) and all(isinstance(index, int) for index in value)
    if not isinstance(value, bool) and not is_mapping:
        raise UserError(f"share_params={value}: expected true, false, or a parameter set an agent, such as [0,0,1]")


def activation_class(name: str) -> type[nn.Module]:
    """The PyTorch class of an activation's lower-case name."""
    return next(cls for key, cls in vars(nn).items() if key.lower() == name)
