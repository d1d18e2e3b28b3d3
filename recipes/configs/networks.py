"""Networks as configurations that build themselves once the sizes are known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ctde_kit as ck
from ctde_kit.errors import UserError
from ctde_kit.recipes.configs.checks import CheckedConfig, check_choice, check_positive

if TYPE_CHECKING:
    from torch import nn

    from ctde_kit.modules.networks.sharing import ShareParams

ACTIVATIONS = ("tanh", "relu", "elu", "gelu", "silu")


@dataclass
class NetworkConfig(CheckedConfig):
    """A network over the agent axis; this is the base of all networks' configurations.

    Args:
        num_cells: widths of the hidden layers.
        activation: between them.
        agent_id: append the agent's one-hot index to the input.
        normalize: normalize the input's features.
        layer_norm: normalize each hidden layer before its activation.
        out_gain: gain of an orthogonal initialization of the last layer; null for PyTorch's default.
    """

    num_cells: list[int] = field(default_factory=lambda: [128])
    activation: str = "tanh"
    agent_id: bool = False
    normalize: bool = False
    layer_norm: bool = False
    out_gain: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("activation", self.activation, ACTIVATIONS)
        check_share_params(self.weight_sharing)
        check_positive(**{f"num_cells[{i}]": cells for i, cells in enumerate(self.num_cells)})

    @property
    def weight_sharing(self) -> ShareParams:
        """Which agents have the same weights: true for all, false for none, or the parameter set of each."""
        return True

    @property
    def recurrent(self) -> bool:
        """Whether it remembers earlier steps."""
        return False

    def build(self, in_features: int, out_features: int, n_agents: int, /) -> nn.Module:
        """The network."""
        raise NotImplementedError


@dataclass
class MLPNetwork(NetworkConfig):
    """A multilayer perceptron for each agent.

    Args:
        num_cells: widths of the hidden layers.
        activation: between them.
        agent_id: append the agent's one-hot index to the input.
        normalize: normalize the input's features.
        layer_norm: normalize each hidden layer before its activation.
        out_gain: gain of an orthogonal initialization of the last layer; null for PyTorch's default.
        share_params: true, false, or the parameter set of each agent, such as [0,0,1].

    >>> import torch
    >>> from ctde_kit.recipes import MLPNetwork
    >>> network = MLPNetwork(num_cells=[16], share_params=[0, 0, 1]).build(5, 2, 3)
    >>> network(torch.zeros(4, 3, 5)).shape
    torch.Size([4, 3, 2])
    """

    num_cells: list[int] = field(default_factory=lambda: [256, 256])
    share_params: Any = True

    @property
    def weight_sharing(self) -> ShareParams:
        return self.share_params

    def build(self, in_features: int, out_features: int, n_agents: int, /) -> nn.Module:
        return ck.MultiAgentMLP(
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
class GRUNetwork(NetworkConfig):
    """A recurrent network for each agent: an encoder and a GRU.

    Args:
        num_cells: widths of the encoder's layers.
        activation: of the encoder.
        agent_id: append the agent's one-hot index to the input.
        normalize: normalize the input's features.
        layer_norm: normalize each hidden layer before its activation.
        out_gain: gain of an orthogonal initialization of the last layer; null for PyTorch's default.
        share_params: true, false, or the parameter set of each agent, such as [0,0,1].
        hidden_size: of the GRU's state.

    >>> import torch
    >>> from ctde_kit.recipes import GRUNetwork
    >>> network = GRUNetwork(num_cells=[16], hidden_size=8).build(5, 2, 3)
    >>> outputs, hidden, _ = network(torch.zeros(4, 3, 5), torch.zeros(4, 3, 8), torch.ones(4, 1).bool())
    >>> outputs.shape, hidden.shape
    (torch.Size([4, 3, 2]), torch.Size([4, 3, 8]))
    """

    share_params: Any = True
    hidden_size: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(hidden_size=self.hidden_size)

    @property
    def recurrent(self) -> bool:
        return True

    @property
    def weight_sharing(self) -> ShareParams:
        return self.share_params

    def build(self, in_features: int, out_features: int, n_agents: int, /) -> nn.Module:
        return ck.MultiAgentGRU(
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


def check_share_params(value: object) -> None:
    """Raise ``UserError`` unless ``value`` is true, false or a list of whole numbers."""
    is_mapping = isinstance(value, (list, tuple)) and all(isinstance(index, int) for index in value)
    if not isinstance(value, bool) and not is_mapping:
        raise UserError(f"share_params={value}: expected true, false, or a parameter set per agent, such as [0,0,1]")


def activation_class(name: str) -> type[nn.Module]:
    """The PyTorch class of an activation's lower-case name."""
    from torch import nn

    return next(cls for key, cls in vars(nn).items() if key.lower() == name)
