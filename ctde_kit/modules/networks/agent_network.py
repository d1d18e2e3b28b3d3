"""A network as a TensorDict module: it reads an input, writes outputs, and carries a hidden state if it has one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeGuard, runtime_checkable

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn
from torchrl.data import Unbounded
from torchrl.envs import TensorDictPrimer
from torchrl.modules.tensordict_module.rnn import recurrent_mode

from ctde_kit.entry_tables import Entry, root_entry
from ctde_kit.errors import UserError
from ctde_kit.keys import IS_INIT, GroupKeys, Key, next_key
from ctde_kit.modules.keyword_calls import keyword_calls
from ctde_kit.modules.networks.inputs import Input
from ctde_kit.modules.networks.linear import AgentLinear
from ctde_kit.modules.networks.primer import primer
from ctde_kit.modules.networks.sizes import HasFirstLayer, NetworkOutput, OutputSize, check_input
from ctde_kit.modules.networks.team_input import TeamInput
from ctde_kit.modules.networks.time_axis import check_continues
from ctde_kit.protocols import HasForAgent, SaysCentralized, SaysDecentralized, SaysReadsMask, SaysRecurrent

Split = Callable[[Tensor], Sequence[Tensor]]
NetworkFactory = Callable[[int, int, int], nn.Module]
"""``(in_features, out_features, n_agents) -> network``."""


class RecurrentNetwork(Protocol):
    """What ``AgentNetwork`` uses of a network whose ``recurrent`` is true, such as ``MultiAgentGRU``."""

    hidden_size: int

    def __call__(self, x: Tensor, hidden: Tensor, is_init: Tensor, /) -> tuple[Tensor, Tensor, Tensor]:
        """One step: outputs, the next hidden state, and the hidden state that was used."""
        ...

    def unroll(self, x: Tensor, hidden: Tensor, is_init: Tensor, /) -> tuple[Tensor, Tensor, Tensor]:
        """All steps along time: the same three, each with a time axis."""
        ...


class ChannelNetwork(Protocol):
    """What ``AgentNetwork`` uses of a network whose ``reads_mask`` is true, such as ``MultiAgentCommNet``."""

    def __call__(self, x: Tensor, /, *carried: Tensor, mask: Tensor | None) -> NetworkOutput:
        """``mask`` bool ``[*B, n]``: which agents are alive, ``None`` where all are."""
        ...


@runtime_checkable
class SplitPerAgent(Protocol):
    """A split that differs from agent to agent."""

    def for_agent(self, agent: int, /) -> Split:
        """The split of one agent."""
        ...


def actor_hidden_key(keys: GroupKeys, inputs: Input | TeamInput) -> Key:
    """Where a recurrent actor keeps its hidden state: at the root if it includes the states of other groups' agents."""
    return keys.team_hidden("actor") if isinstance(inputs, TeamInput) else keys.hidden("actor")


def is_recurrent(network: nn.Module) -> TypeGuard[RecurrentNetwork]:
    """Whether a network says that it is recurrent."""
    return isinstance(network, SaysRecurrent) and network.recurrent


def reads_mask(network: nn.Module) -> TypeGuard[ChannelNetwork]:
    """Whether a network says that it needs to know which agents are alive."""
    return isinstance(network, SaysReadsMask) and network.reads_mask


def mixes_agents(network: nn.Module) -> bool:
    """Whether a network says that agent i's output depends on other agents' rows of its input."""
    if isinstance(network, SaysDecentralized):
        return not network.decentralized
    return isinstance(network, SaysCentralized) and network.centralized


class AgentNetwork(TensorDictModuleBase):
    """Runs ``network`` on what ``inputs`` reads, and writes ``out_keys`` ``[*B, n_agents, ...]``.

    A feed-forward network (``MultiAgentMLP``) treats all batch dimensions alike. A recurrent one (``MultiAgentGRU``)
    also reads ``is_init`` bool ``[*B, 1]`` and its hidden state ``[*B, n, H]``. In step mode, the default, it writes
    the next hidden state under ``("next", hidden)``, and the state that it used (zero where ``is_init``) back to
    ``hidden``: what is stored is what was used. Inside ``torchrl.modules.set_recurrent_mode(True)`` the last
    batch dimension is time: it starts from the stored hidden state of the slice's first step, whatever ``is_init``
    says there, and zeroes it at each true reset inside. A network with a channel between agents (``MultiAgentBiCNet``)
    also gets the mask that ``inputs`` reads: which agents are alive.

    Args:
        inputs: what the network sees.
        network: ``[*B, n, F] -> [*B, n, G]``.
        out_keys: where to write.
        hidden_key: the key of its hidden state; a recurrent network needs one.
        split: turns the output into one tensor per key; ``None``: the output itself is written at the only key.
        output_size: the size that the output must have; ``None``: any.

    Raises:
        UserError: where ``is_init`` or the hidden state is missing: append ``torchrl.envs.InitTracker()`` and
            ``make_tensordict_primer()`` to the env; for a channel between agents that all have the same input; for a
            network of other sizes; for shuffled single steps ``[B]`` where the last dimension is time.

    >>> import torch
    >>> from tensordict import TensorDict
    >>> from ctde_kit.modules import AgentNetwork, MultiAgentMLP, own_observation
    >>> from ctde_kit.specs import ActionSpec, GroupSpec
    >>> group = GroupSpec("agents", 3, 5, ActionSpec("categorical", (4,)))
    >>> module = AgentNetwork(own_observation(group), MultiAgentMLP(5, 4, n_agents=3), [group.keys.logits])
    >>> module(TensorDict({"agents": {"observation": torch.zeros(2, 3, 5)}}, [2]))["agents", "logits"].shape
    torch.Size([2, 3, 4])
    """

    network: nn.Module
    split: Split | None
    in_keys: list[Key]
    out_keys: list[Key]

    def __init__(
        self,
        inputs: Input | TeamInput,
        network: nn.Module,
        out_keys: Sequence[Key],
        *,
        hidden_key: Key | None = None,
        split: Split | None = None,
        output_size: OutputSize | None = None,
    ):
        super().__init__()
        check_input(network, inputs.n_agents, inputs.features)
        self.inputs, self.network, self.split, self.output_size = inputs, network, split, output_size
        self.hidden_key = hidden_key if self.recurrent else None
        if self.recurrent and hidden_key is None:
            raise UserError(
                "AgentNetwork: hidden_key=None: a recurrent network needs one, such as GroupKeys().hidden('actor')"
            )
        self._reads_mask = reads_mask(network)
        if self._reads_mask and not inputs.per_agent:
            raise UserError(
                f"AgentNetwork: the input of {type(network).__name__} is the team's, the same for every agent, so "
                "agents have nothing to tell each other; use each agent's own data (sees='observation' or "
                "'agent_state' of a critic)"
            )
        self.in_keys = [*inputs.in_keys, *([self.hidden_key, IS_INIT] if self.hidden_key else [])]
        self.out_keys = [*out_keys, *([self.hidden_key, next_key(self.hidden_key)] if self.hidden_key else [])]
        self._written = list(out_keys)

    @property
    def in_entries(self) -> list[Entry]:
        """The shapes and dtypes of the entries that it reads."""
        entries = list(self.inputs.in_entries)
        if self.hidden_key is not None:
            advice = "append the module's make_tensordict_primer() to the env"
            entries.append(Entry(self.hidden_key, "*B n H", self.hidden_shape, "float", advice=advice))
            entries.append(root_entry(IS_INIT, "bool", "append torchrl.envs.InitTracker() to the env"))
        return entries

    @property
    def recurrent(self) -> bool:
        return is_recurrent(self.network)

    @property
    def decentralized(self) -> bool:
        """Whether agent i's output depends on agent i's own data alone."""
        return self.inputs.decentralized and not mixes_agents(self.network)

    @property
    def hidden_shape(self) -> tuple[int, int]:
        """The shape ``(n, H)`` of one hidden state; only a recurrent network has one."""
        assert is_recurrent(self.network)
        return self.inputs.n_agents, self.network.hidden_size

    @keyword_calls()
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        x = self.inputs(tensordict)
        options = {"mask": self.inputs.alive(tensordict)} if self._reads_mask else {}
        if self.hidden_key is None:
            outputs = self.network(x, **options)
        else:
            outputs = self._recurrent_forward(tensordict, x, options)
        if self.output_size is not None:
            self.output_size.check(self.network, x, outputs)
        parts = (outputs,) if self.split is None else self.split(outputs)
        for key, part in zip(self._written, parts, strict=True):
            tensordict.set(key, part)
        return tensordict

    def _recurrent_forward(self, tensordict: TensorDictBase, x: Tensor, options: dict[str, Tensor | None]) -> Tensor:
        network: Any = self.network  # a `RecurrentNetwork`, which takes a mask where it has a channel
        assert self.hidden_key is not None
        is_init, hidden = tensordict.get(IS_INIT, None), tensordict.get(self.hidden_key, None)
        if is_init is None:
            raise UserError(f"key {IS_INIT!r} is missing: append torchrl.envs.InitTracker() to the env")
        if hidden is None:
            raise UserError(
                f"key {self.hidden_key} is missing: append the module's make_tensordict_primer() to the env"
            )
        if recurrent_mode():
            # Stored states are inputs: if they carry a gradient, it belongs to the pass that collected them.
            first = hidden.select(tensordict.ndim - 1, 0).detach()
            check_continues(tensordict, self.hidden_key, hidden, is_init)
            outputs, after, before = network.unroll(x, first, is_init, **options)
        else:
            outputs, after, before = network(x, hidden, is_init, **options)
        tensordict.set(self.hidden_key, before)
        tensordict.set(next_key(self.hidden_key), after)
        return outputs

    def make_tensordict_primer(self) -> TensorDictPrimer:
        """The env transform that provides the hidden state; it does nothing for a feed-forward network."""
        if self.hidden_key is None:
            return primer({})
        return primer({self.hidden_key: Unbounded(torch.Size(self.hidden_shape))})

    def compute_only(self, agents: slice | None) -> None:
        """From now on compute these agents and give 0 for the others; ``None``: all.

        A network whose agents hear each other computes all, and so does one with a single row, which may be everyone's.
        """
        is_by_agent = isinstance(self.network, HasFirstLayer) and not mixes_agents(self.network)
        if isinstance(self.inputs, TeamInput) or self.inputs.n_agents == 1 or not is_by_agent:
            return
        for layer in self.network.modules():
            if isinstance(layer, AgentLinear) and layer.n_agents == self.inputs.n_agents:
                layer.agents = agents

    def for_agent(self, agent: int, *, keep_axis: bool = False) -> AgentNetwork:
        """The network of one agent, on the same storage.

        It reads entries without the agent axis, ``[*B, F]``; with ``keep_axis`` they have one of size 1.

        Raises:
            UserError: where an agent's output needs others' data.
        """
        if not self.decentralized or isinstance(self.inputs, TeamInput):
            reason = "reads" if not self.inputs.decentralized else f"({type(self.network).__name__}) hears"
            raise UserError(f"for_agent: this network {reason} other agents' data, so no agent can run it alone")
        if not isinstance(self.network, HasForAgent):
            raise UserError(
                f"for_agent: {type(self.network).__name__} has no for_agent(agent); use MultiAgentMLP or MultiAgentGRU"
            )
        return AgentNetwork(
            self.inputs.for_agent(agent, keep_axis=keep_axis),
            self.network.for_agent(agent),
            self._written,
            hidden_key=self.hidden_key,
            split=self.split.for_agent(agent) if isinstance(self.split, SplitPerAgent) else self.split,
            output_size=None if self.output_size is None else replace(self.output_size, n_agents=1),
        )
