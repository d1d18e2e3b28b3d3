"""A recurrent network (GRU) for each agent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ctde_kit.kernels import CPP_KERNELS
from ctde_kit.modules.networks.gru_kernel import KERNELS
from ctde_kit.modules.networks.gru_sequence import gru_cell, gru_states
from ctde_kit.modules.networks.linear import AgentLinear, use_layers_of_agent
from ctde_kit.modules.networks.mlp import initialize, norms
from ctde_kit.modules.networks.sharing import ShareParams

CPP_KERNELS.update(KERNELS)


class MultiAgentGRU(nn.Module):
    """An encoder, a GRU and an output layer for each of ``n_agents`` (Cho et al. 2014, with PyTorch's gates).

    One step maps ``[*B, n_agents, F]`` and the hidden state ``[*B, n_agents, H]`` to outputs ``[*B, n_agents, G]`` and
    the next hidden state; ``unroll`` does the same along time. ``is_init`` ``[*B, 1]`` (bool) marks the first step of
    an episode, whose hidden state is zero.

    Args:
        in_features: F.
        out_features: G.
        n_agents: size of the agent axis.
        share_params: one set for all agents (``True``), one per agent (``False``), or the index of each agent's set.
        hidden_size: H.
        num_cells: widths of the encoder's layers before the GRU; one number for one layer.
        activation_class: makes the encoder's activation.
        layer_norm: of the encoder, as in ``MultiAgentMLP``.
        out_gain: as in ``MultiAgentMLP``.

    >>> import torch
    >>> from ctde_kit.modules import MultiAgentGRU
    >>> gru = MultiAgentGRU(5, 2, n_agents=3, hidden_size=8, num_cells=(6,))
    >>> outputs, hidden = gru.unroll(torch.zeros(4, 7, 3, 5), torch.zeros(4, 3, 8), torch.zeros(4, 7, 1).bool())[:2]
    >>> outputs.shape, hidden.shape
    (torch.Size([4, 7, 3, 2]), torch.Size([4, 7, 3, 8]))
    """

    recurrent = True

    def __init__(
        self,
        in_features: int,
        out_features: int,
        n_agents: int,
        *,
        share_params: ShareParams = True,
        hidden_size: int = 128,
        num_cells: int | Sequence[int] = (128,),
        activation_class: Callable[[], nn.Module] = nn.Tanh,
        layer_norm: bool = False,
        out_gain: float | None = None,
    ):
        super().__init__()
        num_cells = (num_cells,) if isinstance(num_cells, int) else num_cells
        self.hidden_size = hidden_size
        self.sizes = (in_features, *num_cells)
        encoder = [AgentLinear(n_in, n_out, n_agents, share_params) for n_in, n_out in pairwise(self.sizes)]
        self.encoder = nn.ModuleList(encoder)
        self.activation = activation_class()
        self.norms = norms(num_cells, layer_norm)
        self.input_gates = AgentLinear(self.sizes[-1], 3 * hidden_size, n_agents, share_params)
        self.hidden_gates = AgentLinear(hidden_size, 3 * hidden_size, n_agents, share_params)
        self.head = AgentLinear(hidden_size, out_features, n_agents, share_params)
        initialize([*encoder, self.head], out_gain)

    @property
    def first(self) -> AgentLinear:
        """The layer that reads the features."""
        layer = self.encoder[0] if len(self.encoder) else self.input_gates
        assert isinstance(layer, AgentLinear)
        return layer

    def forward(self, x: Tensor, hidden: Tensor, is_init: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One step: outputs, the next hidden state, and the hidden state that the step began with."""
        return self.after_first(self.first(x), hidden, is_init)

    def after_first(self, x: Tensor, hidden: Tensor, is_init: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One step, from the output of the first layer."""
        hidden = hidden.masked_fill(is_init.unsqueeze(-1), 0.0)
        next_hidden = gru_cell(self._input_gates(x), self.hidden_gates(hidden), hidden)
        return self.head(next_hidden), next_hidden, hidden

    def unroll(self, x: Tensor, hidden: Tensor, is_init: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All steps along time: outputs, hidden states after and before each step, all ``[*B, T, n_agents, ...]``.

        ``hidden`` ``[*B, n_agents, H]`` is the state before the first step, whatever ``is_init`` says there: samplers
        mark the start of every slice, and the stored state of an episode's first step is zero anyway.
        """
        # Time comes first, so that each step of all sequences is one block of memory.
        gates = self._input_gates(self.first(x.movedim(-3, 0)))
        resets = is_init.movedim(-2, 0).expand(gates.shape[:-1])
        weight, bias = self.hidden_gates.weights_and_biases()
        grouped = [_in_groups(part, len(weight)) for part in (gates, hidden.unsqueeze(0), resets.unsqueeze(-1))]
        states = gru_states(grouped[0], grouped[1][:, 0], grouped[2][..., 0], weight, bias)
        after = states.permute(1, 2, 0, 3).reshape(*gates.shape[:-1], self.hidden_size)
        before = torch.cat([hidden.unsqueeze(0), after[:-1].masked_fill(resets[1:].unsqueeze(-1), 0)])
        outputs, after, before = (part.movedim(0, -3).contiguous() for part in (self.head(after), after, before))
        return outputs, after, before

    def _input_gates(self, x: Tensor) -> Tensor:
        for norm, layer in zip(self.norms, [*self.encoder, self.input_gates][1:], strict=True):
            x = layer(self.activation(norm(x)))
        return x

    def for_agent(self, agent: int) -> MultiAgentGRU:
        """The network of one agent, on the same storage."""
        in_features, *num_cells = self.sizes
        with torch.device("meta"):  # nothing is allocated, and no random number is drawn
            single = MultiAgentGRU(
                in_features,
                self.head.out_features,
                1,
                hidden_size=self.hidden_size,
                num_cells=num_cells,
                activation_class=lambda: self.activation,
            )
        single.norms = self.norms
        use_layers_of_agent(single, self, agent)
        return single


def _in_groups(rows: Tensor, groups: int) -> Tensor:
    """Rows ``[T, *B, n_agents, F]`` as ``[groups, T, R, F]``: all of them in one group, or each agent's in its own."""
    return rows.reshape(len(rows), -1, groups, rows.shape[-1]).permute(2, 0, 1, 3)
