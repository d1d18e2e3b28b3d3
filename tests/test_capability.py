"""Capabilities are seen in whatever way a part has them, on every Python version."""

from __future__ import annotations

import inspect

import pytest
import torch
from tensordict.nn import TensorDictModule
from torch import Tensor, nn

from ctde_kit.keys import GroupKeys
from ctde_kit.modules import (
    AgentNetwork,
    MultiAgentGRU,
    MultiAgentMLP,
    RandomOrderCritic,
    own_observation,
    value_critic,
)
from ctde_kit.protocols import DrawsOrders, KeepsHiddenState, PureEnv, ReportsCapture, SaysReadsMask, SaysRecurrent
from ctde_kit.specs import ActionSpec, GroupSpec, TeamSpec

GROUP = GroupSpec("agents", 3, 5, ActionSpec("categorical", (4,)))


class FlagAsBuffer(nn.Module):
    reads_mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("reads_mask", torch.tensor(True))


def gru_network() -> AgentNetwork:
    network = MultiAgentGRU(5, 4, n_agents=3, hidden_size=8, num_cells=(6,))
    return AgentNetwork(own_observation(GROUP), network, [GROUP.keys.logits], hidden_key=GROUP.keys.hidden("actor"))


def wrapped_gru() -> TensorDictModule:
    """A module of TensorDict, which passes on the attributes of what it wraps."""
    return TensorDictModule(gru_network(), in_keys=["x"], out_keys=["y"])


@pytest.mark.parametrize(
    ("part", "capability", "name"),
    [(FlagAsBuffer(), SaysReadsMask, "reads_mask"), (wrapped_gru(), KeepsHiddenState, "hidden_key")],
    ids=["buffer", "wrapped"],
)
def test_attributes_that_python_3_12_overlooks_are_seen(part: nn.Module, capability: type, name: str) -> None:
    # From Python 3.12 on, `isinstance` of a plain protocol asks this function.
    with pytest.raises(AttributeError):
        inspect.getattr_static(part, name)
    assert isinstance(part, capability)


def test_a_wrapped_recurrent_network_is_recurrent() -> None:
    from ctde_kit.objectives.unroll import hidden_key

    assert hidden_key(wrapped_gru()) == GroupKeys().hidden("actor")


def test_a_property_that_raises_is_not_evaluated() -> None:
    class Unreadable:
        @property
        def state_is_captured(self) -> bool:
            raise RuntimeError("cannot be read")

    assert isinstance(Unreadable(), ReportsCapture)


def test_a_part_without_one_of_the_names_has_not_the_capability() -> None:
    team = TeamSpec((GROUP,))
    critic = value_critic(team, GROUP, MultiAgentMLP)
    assert not isinstance(critic, DrawsOrders)
    assert isinstance(RandomOrderCritic(team, critic), DrawsOrders)
    assert not isinstance(nn.Linear(1, 1), SaysRecurrent)
    del_one = type("NoResets", (), {"state_dict": 0, "load_state_dict": 0, "tensor_state": 0, "draw_initial_states": 0})
    assert not isinstance(del_one(), PureEnv), "names of the protocol that it extends count, and its own, too"
    assert isinstance(type("All", (del_one,), {"resets_to": 0})(), PureEnv)


def test_classes_that_extend_a_capability_are_asked_for_as_classes() -> None:
    class Mine(SaysRecurrent):
        @property
        def recurrent(self) -> bool:
            return False

    assert isinstance(Mine(), SaysRecurrent)
    assert not isinstance(gru_network(), Mine)
