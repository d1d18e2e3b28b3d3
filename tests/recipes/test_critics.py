"""Critics as configurations: what fits, and one line that names the fix for what does not."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torchrl.envs import TransformedEnv

from ctde_kit.envs.games import MatrixGameEnv
from ctde_kit.envs.transforms import AgentState
from ctde_kit.errors import UserError
from ctde_kit.modules import RandomOrderCritic
from ctde_kit.recipes import AttentionCriticConfig, ValueCriticConfig
from ctde_kit.recipes.commands import recording, running
from ctde_kit.recipes.wiring.attending import attention_critics
from ctde_kit.recipes.wiring.critic_parts import critics_team
from ctde_kit.specs import TeamSpec
from ctde_kit.training import Callbacks, RunDirectory, iterate
from ctde_kit.training.stop_signals import StopSignals
from tests.contracts.fakes import group_spec, observe
from tests.recipes.small import network, small_config
from tests.recipes.small_maddpg import small_maddpg_config
from tests.recipes.small_masac import small_masac_config

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


@pytest.mark.parametrize(("sees", "ordering"), [("team", "fixed"), ("team", "random"), ("state", "fixed")])
def test_one_network_for_rows_that_are_alike_is_refused(sees: str, ordering: str) -> None:
    with pytest.raises(UserError, match=r"heads=network: .*share_params=false, .*agent_id=true, .*ordering=own_first"):
        config(sees=sees, heads="network", ordering=ordering)
    config(sees=sees, heads="network", share_params=False)
    config(sees=sees, heads="network", agent_id=True)


ALIKE = "the agents' actors differ, and their one critic cannot tell agents apart"


@pytest.mark.parametrize("build", [small_maddpg_config, small_masac_config])
@pytest.mark.parametrize(
    ("actor", "critic", "alike"),
    [
        ({"share_params": False}, {}, True),
        ({"agent_id": True}, {}, True),
        ({"share_params": False}, {"agent_id": True}, False),
        ({"share_params": False}, {"share_params": False}, False),
        ({}, {}, False),
    ],
)
def test_one_critic_of_one_agents_data_is_said_to_see_no_difference(
    build: Any, actor: dict[str, Any], critic: dict[str, Any], alike: bool, caplog: pytest.LogCaptureFixture
) -> None:
    one = ValueCriticConfig(sees="observation", network=replace(network("mlp"), **critic))
    cfg = build(algorithm="iddpg" if build is small_maddpg_config else "isac", critic=one)
    with caplog.at_level(logging.WARNING, "ctde_kit"):
        replace(cfg, actor=replace(cfg.actor, **actor)).build()
    assert (ALIKE in caplog.text) == alike


def test_random_orders_go_with_neither_recurrent_critics_of_states_nor_clipped_values() -> None:
    with pytest.raises(UserError, match=r"RandomOrderCritic: .*feed-forward network"):
        config("gru", ordering="random").build(TEAM, TEAM["wolves"])
    assert config("gru", ordering="random").build_action_value(TEAM, TEAM["wolves"]).hidden_key is not None
    with pytest.raises(UserError, match=r"clip_value=0\.3: .*use clip_value=None"):
        small_config(critic=ValueCriticConfig(ordering="random", network=network("mlp")), clip_value=0.3).build()


@pytest.mark.parametrize("sets", [2, 3])
@pytest.mark.parametrize("build", ["build", "build_action_value"])
def test_a_cluster_of_like_agents_has_one_critic(build: str, sets: int) -> None:
    share_params = [0, 0, 1] if sets == 2 else False
    critic = getattr(config(heads="network", share_params=share_params), build)(TEAM, TEAM["wolves"])
    network = getattr(critic, "agent_network", critic)
    assert {layer.weight.shape[0] for layer in network.network.layers} == {sets}
    data = observe(TEAM, 5)
    for group in TEAM:
        data[group.name, "action_vector"] = torch.randn(5, group.n_agents, 2)
    values = critic(data)["wolves", critic.out_keys[0][1]]
    assert torch.equal(values[:, 0], values[:, 1]) is (sets == 2)
    assert not torch.equal(values[:, 1], values[:, 2])
    # Each cluster learns from its own agents alone.
    values[:, :2].sum().backward()
    moved = [layer.weight.grad.flatten(1).any(1).tolist() for layer in network.network.layers]
    assert moved == [[True] * (sets - 1) + [False]] * len(moved)


@pytest.mark.parametrize("share_params", [True, [0, 0, 1]])
def test_averages_are_of_one_critic_an_agent(share_params: Any) -> None:
    with pytest.raises(UserError, match=r"use critic\.heads=network critic\.network\.share_params=false"):
        config(heads="network", share_params=share_params, average_every=3)
    with pytest.raises(UserError, match="average_every=0: expected a number above 0"):
        config(heads="network", share_params=False, average_every=0)


@pytest.mark.parametrize(
    ("options", "fix"),
    [
        ({"n_heads": 5}, r"expected a divisor of critic\.embed_dim=64"),
        ({"network": network("gru")}, r"use network@critic\.network=mlp"),
        ({"average_every": 3}, r"use critic\.heads=network"),
        ({"embed_dim": 0}, r"critic\.embed_dim=0"),
    ],
)
def test_attention_that_cannot_be_names_the_fix(options: dict[str, Any], fix: str) -> None:
    with pytest.raises(UserError, match=fix) as error:
        AttentionCriticConfig(**{"network": network("mlp"), **options})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("algorithm", ["mappo", "maddpg"])
def test_a_run_shows_what_its_critics_attend_to(
    algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    critic = AttentionCriticConfig(embed_dim=6, n_heads=2, network=network("mlp"))
    make = small_config if algorithm == "mappo" else small_maddpg_config
    config: Any = make(critic=critic, video=True, total_frames=60)
    parts = config.build()
    losses = parts.update.losses
    learned = losses["agents"].critic_network if algorithm == "mappo" else losses["team"].critics["agents"]
    assert attention_critics(parts)["agents"] is learned
    monkeypatch.setattr(recording, "write_gif", lambda frames, path: shown.append((frames, path)))
    shown: list[Any] = []
    with ExitStack() as closing:
        running._train(config, parts, Callbacks({}), RunDirectory(tmp_path / "run"), 0.0, StopSignals(), closing, None)
    assert (tmp_path / "run" / "plots" / "attention.png").stat().st_size > 5000
    ((frames, _),) = shown
    assert len(frames) == 7
    height, width = frames[0].shape[:2]
    assert width == round(1.7 * height)


@pytest.mark.parametrize("algorithm", ["mappo", "maddpg"])
def test_states_are_built_for_tasks_without(algorithm: str) -> None:
    make = small_config if algorithm == "mappo" else small_maddpg_config
    with pytest.raises(UserError, match=r"writes no key \('agents', 'state'\); append envs\.transforms\.AgentState"):
        make(critic=ValueCriticConfig(sees="agent_state", network=network("mlp"))).build()
    critic = ValueCriticConfig(sees="agent_state", build_state=True, network=network("mlp"))
    parts = make(critic=critic).build()
    iteration = next(iterate(parts))
    assert iteration.batch["agents", "state"].shape == (6, 10, 2, 3 * 18)
    assert iteration.metrics["num_updates"] > 0


def test_states_are_built_for_critics_that_read_them() -> None:
    with pytest.raises(UserError, match=r"it is for critic=agent_state"):
        config(build_state=True)
    env = TransformedEnv(MatrixGameEnv(3, [[1.0, 2.0], [3.0, 4.0]]))
    env.append_transform(AgentState(TeamSpec.from_env(env)))
    with pytest.raises(UserError, match=r"states of its own; leave it out"):
        critics_team(env, config(sees="agent_state", build_state=True))
