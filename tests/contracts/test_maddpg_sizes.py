"""Every deterministic actor with every critic of actions: all sizes differ, and each parameter learns."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from ctde_kit.errors import UserError
from ctde_kit.modules import MultiAgentDeterministicActor, QMixer, action_value_critic, own_observation
from ctde_kit.objectives import MADDPGLoss, MinimaxAdversary, TargetPolicySmoothing, TDLambdaReturn, TeamReward
from ctde_kit.specs import TeamSpec
from ctde_kit.training import GradientStep
from tests.contracts.covering import combinations
from tests.contracts.fakes import KINDS, LENGTH, N_ENVS, SHARINGS, collect, endings, group_spec, make_network
from tests.contracts.learning import assert_every_parameter_learns, assert_the_graph_gives_the_eager_gradients

LAYOUTS: dict[str, dict[str, Any]] = {
    "team": {},
    "state": {"sees": "state"},
    "agent state": {"sees": "agent_state"},
    "own": {"sees": "observation"},
    "networks": {"heads": "network"},
    "one": {"heads": "one"},
    "ids": {"agent_id": True},
}


def make(kind: str, layout: str, recurrent: bool, share: Any, mixed: bool = False, **options: Any) -> Any:
    wolves = group_spec("wolves", 3, kind, action_mask=kind != "continuous", state_dim=11)
    sheep = group_spec("sheep", 2, kind, observation_dim=8, mask=True, state_dim=13)
    team = TeamSpec((wolves, sheep), 10)
    actors, critics = {}, {}
    for group in team:
        network = make_network(recurrent, share)(group.observation_dim, group.action.vector_dim, group.n_agents)
        actors[group.name] = MultiAgentDeterministicActor(group, own_observation(group), network)
        shared = True if layout in ("team", "state", "one") else share
        critics[group.name] = action_value_critic(team, group, make_network(recurrent, shared), **LAYOUTS[layout])
    batch = TeamReward(team, "mean")(collect(team, actors, *endings())[0])
    mixer = QMixer(team, embed_dim=9) if mixed else None
    if options.pop("twins", False):
        options["twin_critics"] = {
            group.name: action_value_critic(team, group, make_network(recurrent)) for group in team
        }
    return MADDPGLoss(actors, critics, mixer, gamma=0.9, action_regularization=0.1, **options), batch


@combinations(kind=KINDS, network=["mlp", "gru"], share=SHARINGS, layout=list(LAYOUTS), algorithm=["maddpg", "facmac"])
def test_actors_and_critics_fit(kind: str, network: str, share: Any, layout: str, algorithm: str) -> None:
    recurrent = network == "gru"
    options = {"burn_in": 2 * recurrent, "returns": TDLambdaReturn(0.7)}
    loss, batch = make(kind, layout, recurrent, share, algorithm == "facmac", **options)
    losses = loss(batch)
    assert set(losses.keys()) == set(loss.out_keys)
    assert all(value.shape == () and value.isfinite() for value in losses.values())
    assert batch["td_error"].shape == (N_ENVS, LENGTH)
    (losses["loss_actor"] + losses["loss_value"]).backward()
    assert_every_parameter_learns(loss)


def test_recurrent_twin_critics_learn_from_hidden_states_of_their_own() -> None:
    loss, batch = make("continuous", "team", True, False, twins=True, burn_in=2, returns=TDLambdaReturn(0.7))
    losses = loss(batch)
    (losses["loss_actor"] + losses["loss_value"]).backward()
    assert all(p.grad is not None and p.grad.any() for p in loss.twin_critics.parameters())


@pytest.mark.parametrize("recurrent", [False, True])
def test_in_keys_are_all_that_is_needed(recurrent: bool) -> None:
    loss, batch = make("categorical", "state", recurrent, False)
    torch.manual_seed(1)
    expected = loss(batch.clone())
    torch.manual_seed(1)
    assert torch.equal(loss(batch.select(*loss.in_keys))["loss_value"], expected["loss_value"])
    for key in loss.in_keys:
        if key not in ("is_init", ("next", "sheep", "mask")):  # these are read where they are there
            with pytest.raises(UserError, match=re.escape(f"key {key!r} is missing")):
                loss(batch.select(*loss.in_keys).exclude(key))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        pytest.param("categorical", {}, marks=pytest.mark.slow),
        pytest.param("continuous", {"mixed": True}, marks=pytest.mark.slow),
        pytest.param("continuous", {"twins": True, "smoothing": TargetPolicySmoothing()}, marks=pytest.mark.slow),
        pytest.param("continuous", {"other_actions": "current"}, marks=pytest.mark.slow),
        pytest.param("continuous", {"adversary": MinimaxAdversary(0.1)}, marks=pytest.mark.slow),
    ],
)
def test_the_gradient_step_is_one_graph(kind: str, options: dict[str, Any], graphs: None) -> None:
    loss, batch = make(kind, "team", False, False, **options)
    minibatch = batch.reshape(-1)
    step = GradientStep({"team": loss}, torch.optim.SGD(loss.parameters(), lr=0.0), 1.0, compile=True)
    step(minibatch.clone())
    assert step.compile
    minibatch["wolves", "observation"] = torch.randn_like(minibatch["wolves", "observation"])
    assert_the_graph_gives_the_eager_gradients(step, minibatch)
