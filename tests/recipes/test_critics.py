"""Critics as configurations: what fits, and one line that names the fix for what does not."""

from __future__ import annotations

from typing import Any

import pytest
from ctde_kit.recipes.critics import ValueCriticConfig

from ctde_kit.errors import UserError
from ctde_kit.modules import RandomOrderCritic
from ctde_kit.specs import TeamSpec
from tests.contracts.fakes import group_spec
from tests.recipes.small import network

TEAM = TeamSpec((group_spec("wolves", 3, "continuous"), group_spec("sheep", 2, "continuous", observation_dim=8)), 4)


def config(kind: str = "mlp", share_params: Any = True, agent_id: bool = False, **options: Any) -> ValueCriticConfig:
    return ValueCriticConfig(network=network(kind, share_params=share_params, agent_id=agent_id), **options)


@pytest.mark.parametrize("build", ["build", "build_action_value"])
def test_orderings_build(build: str) -> None:
    own_first = getattr(config(ordering="own_first", heads="network", share_params=False), build)
    critic = own_first(TEAM, TEAM["sheep"])
    assert getattr(critic, "agent_network", critic).inputs.columns is not None
    assert isinstance(getattr(config(ordering="random"), build)(TEAM, TEAM["sheep"]), RandomOrderCritic)


@pytest.mark.parametrize(
    ("options", "fix"),
    [
        ({"ordering": "shuffled"}, "expected one of fixed, own_first, random"),
        ({"ordering": "own_first"}, "use critic.heads=network"),
        ({"ordering": "own_first", "heads": "one"}, "use critic.heads=network"),
        ({"ordering": "own_first", "sees": "observation"}, "use critic=centralized"),
        ({"ordering": "random", "sees": "observation"}, "use critic=centralized"),
        ({"ordering": "random", "sees": "state"}, "use critic=centralized"),
        ({"ordering": "random", "sees": "agent_state"}, "use critic=centralized"),
        ({"ordering": "random", "heads": "network", "agent_id": True}, "use critic.network.agent_id=false"),
    ],
)
def test_meaningless_orderings_name_the_fix(options: dict[str, Any], fix: str) -> None:
    with pytest.raises(UserError, match=fix) as error:
        config(**options)
    assert "\n" not in str(error.value)


def test_a_recurrent_critic_of_states_keeps_its_order() -> None:
    with pytest.raises(UserError, match=r"use network@critic\.network=mlp"):
        config("gru", ordering="random").build(TEAM, TEAM["wolves"])
    config("gru", ordering="random").build_action_value(TEAM, TEAM["wolves"])
