"""Every Q actor with every mixer: the right shapes, and a finite gradient for every parameter."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ctde_kit.modules import FeedForwardMixer, QMixer, QPLEXMixer, VDNMixer
from ctde_kit.objectives import CentralValue, NStepReturn, QMixLoss, TDLambdaReturn, TeamReward
from ctde_kit.specs import TeamSpec
from ctde_kit.training import GradientStep
from tests.contracts.covering import combinations
from tests.contracts.fakes import LENGTH, N_ENVS, SHARINGS, collect, endings, group_spec, make_q_actor
from tests.contracts.learning import assert_every_parameter_learns, assert_the_graph_gives_the_eager_gradients

MIXERS: dict[str, Any] = {
    "iql": lambda team: None,
    "vdn": VDNMixer,
    "qmix": lambda team: QMixer(team, embed_dim=9, hypernet_cells=(11,)),
    "qplex": lambda team: QPLEXMixer(team, n_heads=4, hypernet_cells=(11,)),
    "ow_qmix": lambda team: QMixer(team, embed_dim=9, hypernet_cells=(11,)),
    "cw_qmix": lambda team: QMixer(team, embed_dim=9, hypernet_cells=(11,)),
}


def central_value(mixer: str, team: TeamSpec, recurrent: bool, share: Any = True) -> CentralValue | None:
    """Weighted QMIX's central value; ``None`` for the other mixers."""
    if mixer not in ("ow_qmix", "cw_qmix"):
        return None
    networks = {group.name: make_q_actor(group, recurrent, share).agent_network for group in team}
    weighting: Any = {"ow_qmix": "optimistic", "cw_qmix": "central"}[mixer]
    return CentralValue(networks, FeedForwardMixer(team, num_cells=(9, 8)), weighting)


@combinations(
    action=[("categorical", False), ("categorical", True), ("one_hot", True)],
    network=["mlp", "gru", "burn_in"],
    share=SHARINGS,
    state_dim=[10, None],
    mixer=list(MIXERS),
)
def test_actors_and_mixer_fit(
    action: tuple[str, bool], network: str, share: Any, state_dim: int | None, mixer: str
) -> None:
    (kind, action_mask), recurrent, burn_in = action, network != "mlp", 2 * (network == "burn_in")
    wolves = group_spec("wolves", 3, kind, action_mask=action_mask)
    sheep = group_spec("sheep", 2, kind, action_mask=action_mask, observation_dim=8, mask=True)
    team = TeamSpec((wolves, sheep), state_dim)
    actors = {group.name: make_q_actor(group, recurrent, share) for group in team}
    batch, _ = collect(team, actors, *endings())
    returns = TDLambdaReturn(0.7) if recurrent else NStepReturn(2)
    central = central_value(mixer, team, recurrent, share)
    loss = QMixLoss(actors, MIXERS[mixer](team), gamma=0.9, returns=returns, burn_in=burn_in, central=central)
    losses = loss(TeamReward(team, "mean")(batch))
    assert set(losses.keys()) == set(loss.out_keys)
    assert all(value.shape == () and value.isfinite() for value in losses.values())
    assert batch["td_error"].shape == (N_ENVS, LENGTH)
    (losses["loss_qvalue"] + losses.get("loss_central", 0)).backward()
    assert_every_parameter_learns(loss)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_teams_reward_is_the_mean_or_sum_of_all_agents_of_all_groups(reduction: Any) -> None:
    team = TeamSpec((group_spec("wolves", 3), group_spec("sheep", 2, mask=True)))
    actors = {group.name: make_q_actor(group) for group in team}
    batch, _ = collect(team, actors, *endings())
    dead = ~batch["sheep", "mask"]
    rewards = batch["next", "sheep", "reward"].masked_fill(dead.unsqueeze(-1), 0)
    expected = batch["next", "wolves", "reward"].sum(-2) + rewards.sum(-2)
    batch["next", "sheep", "reward"][dead] = torch.nan
    result = TeamReward(team, reduction)(batch)["next", "reward"]
    assert result.shape == (N_ENVS, LENGTH, 1)
    torch.testing.assert_close(result, expected / 5 if reduction == "mean" else expected)


@pytest.mark.parametrize("name", ["qplex", pytest.param("cw_qmix", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["categorical", pytest.param("one_hot", marks=pytest.mark.slow)])
def test_the_gradient_step_is_one_graph(kind: str, name: str, graphs: None) -> None:
    wolves, sheep = group_spec("wolves", 3, kind), group_spec("sheep", 2, kind, observation_dim=8, mask=True)
    team = TeamSpec((wolves, sheep), 10)
    actors = {group.name: make_q_actor(group) for group in team}
    loss = QMixLoss(actors, MIXERS[name](team), gamma=0.9, central=central_value(name, team, False))
    minibatch = TeamReward(team, "mean")(collect(team, actors, *endings())[0]).reshape(-1)
    step = GradientStep({"team": loss}, torch.optim.SGD(loss.parameters(), lr=0.0), 1.0, compile=True)
    step(minibatch.clone())
    assert step.compile
    for key in (("wolves", "observation"), "state"):
        minibatch[key] = torch.randn_like(minibatch[key])
    minibatch["wolves", "action"] = minibatch["wolves", "action"].roll(1, 0)
    assert_the_graph_gives_the_eager_gradients(step, minibatch)


@pytest.mark.parametrize(
    ("recurrent", "name"),
    [
        pytest.param(False, "iql", marks=pytest.mark.slow),
        pytest.param(False, "qmix", marks=pytest.mark.slow),
        pytest.param(False, "qplex", marks=pytest.mark.slow),
        pytest.param(False, "cw_qmix", marks=pytest.mark.slow),
        pytest.param(True, "iql", marks=pytest.mark.slow),
        pytest.param(True, "qmix", marks=pytest.mark.slow),
        pytest.param(True, "qplex", marks=pytest.mark.slow),
        pytest.param(True, "cw_qmix", marks=pytest.mark.slow),
    ],
)
def test_the_loss_is_one_graph(recurrent: bool, name: str) -> None:
    wolves, sheep = group_spec("wolves", 3, action_mask=True), group_spec("sheep", 2, observation_dim=8, mask=True)
    team = TeamSpec((wolves, sheep), 10)
    actors = {group.name: make_q_actor(group, recurrent) for group in team}
    batch = TeamReward(team, "mean")(collect(team, actors, *endings())[0])
    central, returns = central_value(name, team, recurrent), TDLambdaReturn(0.7)
    loss = QMixLoss(actors, MIXERS[name](team), gamma=0.9, returns=returns, burn_in=2 * recurrent, central=central)
    torch._dynamo.reset()
    compiled = torch.compile(lambda data: loss(data)["loss_qvalue"], backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(batch.clone()), loss(batch.clone())["loss_qvalue"])
