"""What networks share in which agents talk: the encoder in front, and who is heard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from ctde_kit.errors import UserError
from ctde_kit.modules.networks.gru import MultiAgentGRU
from ctde_kit.modules.networks.mlp import MultiAgentMLP

Talk = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""``(encodings, inputs, mask) -> outputs``, along the agent axis."""


class ChannelEncoder(nn.Module):
    """What each agent makes of its own input before agents talk: ``[*B, n, F] -> [*B, n, H]``, one set of weights.

    A perceptron, or a GRU over time; both end in ``activation``. The agent axis is ``talk``'s alone, so the two never
    mix. ``mask`` bool ``[*B, n]`` says who is alive, ``None`` that all are; the inputs of the dead become zero.

    Args:
        in_features: F.
        hidden_size: H, also of the GRU's state.
        n_agents: size of the agent axis; the weights do not depend on it.
        recurrent: a GRU over time.
        num_cells: widths of the layers before the last, or before the GRU.
        activation_class: between layers, and after the last.
        layer_norm: as in ``MultiAgentMLP``.
        out_gain: where given, weights are orthogonal, as in ``MultiAgentMLP``.

    Raises:
        UserError: for an empty ``hidden_size``.
    """

    def __init__(
        self,
        in_features: int,
        hidden_size: int,
        n_agents: int,
        *,
        recurrent: bool = False,
        num_cells: Sequence[int] = (128,),
        activation_class: type[nn.Module] = nn.Tanh,
        layer_norm: bool = False,
        out_gain: float | None = None,
    ):
        super().__init__()
        if hidden_size < 1:
            raise UserError(f"hidden_size={hidden_size}: expected 1 or more")
        sizes: dict[str, Any] = {"hidden_size": hidden_size} if recurrent else {}
        self.network = (MultiAgentGRU if recurrent else MultiAgentMLP)(
            in_features,
            hidden_size,
            n_agents,
            num_cells=num_cells,
            activation_class=activation_class,
            layer_norm=layer_norm,
            out_gain=None if out_gain is None else 2**0.5,
            **sizes,
        )
        self.recurrent, self.hidden_size = recurrent, hidden_size
        self.activation = activation_class()

    def forward(self, talk: Talk, x: Tensor, *carried: Tensor, mask: Tensor | None) -> Any:
        """What agents make of their encodings together; behind a GRU, hidden states after and before the step, too."""
        x = silenced(x, mask)
        if not self.recurrent:
            return talk(self.activation(self.network(x)), x, mask)
        encoded, after, before = self.network(x, *carried)
        return talk(self.activation(encoded), x, mask), after, before

    def unroll(
        self, talk: Talk, x: Tensor, hidden: Tensor, is_init: Tensor, *, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same along time, as ``MultiAgentGRU.unroll`` has it."""
        assert isinstance(self.network, MultiAgentGRU)
        x = silenced(x, mask)
        encoded, after, before = self.network.unroll(x, hidden, is_init)
        return talk(self.activation(encoded), x, mask), after, before


def silenced(x: Tensor, mask: Tensor | None) -> Tensor:
    """``x`` ``[*B, n, F]`` with zeros where an agent is dead.

    Raises:
        UserError: for a mask of another shape than ``[*B, n]``.
    """
    if mask is None:
        return x
    if mask.shape != x.shape[:-1]:
        raise UserError(f"mask: expected {list(x.shape[:-1])}, an entry an agent, found {list(mask.shape)}")
    return x.masked_fill(~mask.unsqueeze(-1), 0)
