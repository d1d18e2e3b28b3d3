"""Every stochastic actor with every critic of actions in MASAC's loss: all sizes differ, and each parameter learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ctde_kit.modules import ActionPredictors, AttentionCritic, RandomOrderCritic, action_value_critic
from ctde_kit.objectives import MASACLoss, MutualInformation, TDLambdaReturn
from ctde_kit.specs import TeamSpec
from ctde_kit.training import GradientStep
from tests.conftest import graphs_as_traced
from tests.contracts.fakes import KINDS, LENGTH, N_ENVS, collect, endings, group_spec, make_actor, make_network
from tests.contracts.learning import assert_every_parameter_learns, assert_the_graph_gives_the_eager_gradients
from tests.contracts.test_maddpg_sizes import LAYOUTS


def make(kind: str, layout: str, recurrent: bool, share: Any, **options: Any) -> Any:
    wolves = group_spec("wolves", 3, kind, action_mask=kind != "continuous", state_dim=11)
    sheep = group_spec("sheep", 2, kind, observation_dim=8, mask=True, state_dim=13)
    team = TeamSpec((wolves, sheep), 10)
    information = options.pop("information", False)
    actors = {group.name: make_actor(group, recurrent, share, latent_dim=4 * information) for group in team}

    def critic(group: Any) -> Any:
        if layout == "attention":
            return AttentionCritic(team, group, make_network(False), of_actions=True, embed_dim=12, n_heads=2)
        shared = True if layout in ("team", "state", "one", "random order") else share
        found = action_value_critic(team, group, make_network(recurrent, shared), **LAYOUTS.get(layout, {}))
        return RandomOrderCritic(team, found) if layout == "random order" else found

    critics, twins = ({group.name: critic(group) for group in team} for _ in range(2))
    batch = collect(team, actors, *endings())[0]
    if information:
        batch.set("latent", torch.randn(*batch.shape, 4))
        predictors = ActionPredictors(team, make_network(False, False))
        options["mutual_information"] = MutualInformation(predictors, weight=0.3, latent_samples=2)
    return MASACLoss(actors, critics, twins, gamma=0.9, **options), batch


CASES = [
    *[(kind, "team", False, False) for kind in KINDS],
    *[("categorical", layout, False, True) for layout in (*LAYOUTS, "attention", "random order")],
    *[(kind, "networks", True, False) for kind in ("continuous", "categorical")],
    ("categorical", "random order", True, True),
]


@pytest.mark.parametrize(("kind", "layout", "recurrent", "share"), CASES)
def test_actors_and_critics_fit(kind: str, layout: str, recurrent: bool, share: Any) -> None:
    options = {"burn_in": 2} if recurrent else {}
    loss, batch = make(kind, layout, recurrent, share, returns=TDLambdaReturn(0.7), **options)
    losses = loss(batch)
    assert set(losses.keys()) == set(loss.out_keys)
    assert all(value.shape == () and value.isfinite() for value in losses.values())
    assert batch["td_error"].shape == (N_ENVS, LENGTH)
    torch.stack([losses[name] for name in ("loss_actor", "loss_qvalue", "loss_alpha")]).sum().backward()
    assert_every_parameter_learns(loss)


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("kind", ["continuous", "categorical"])
def test_mutual_information_fits(kind: str, recurrent: bool) -> None:
    options = {"burn_in": 2, "returns": TDLambdaReturn(0.7)} if recurrent else {}
    loss, batch = make(kind, "networks", recurrent, False, information=True, **options)
    losses = loss(batch)
    assert set(losses.keys()) == set(loss.out_keys)
    names = ("loss_actor", "loss_qvalue", "loss_alpha", "loss_prediction")
    torch.stack([losses[name] for name in names]).sum().backward()
    assert_every_parameter_learns(loss)
    torch.manual_seed(1)
    expected = loss(batch.clone())
    torch.manual_seed(1)
    found = loss(batch.select(*loss.in_keys))
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("recurrent", [False, True])
def test_in_keys_are_all_that_is_needed(recurrent: bool) -> None:
    loss, batch = make("categorical", "state", recurrent, False)
    torch.manual_seed(1)
    expected = loss(batch.clone())
    torch.manual_seed(1)
    found = loss(batch.select(*loss.in_keys))
    for name in expected.keys():  # noqa: SIM118
        assert torch.equal(found[name], expected[name]), name


def test_the_gradient_step_of_one_hot_actions_is_one_graph() -> None:
    with graphs_as_traced():
        assert_the_gradient_step_is_one_graph("one_hot", information=False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["continuous", "categorical", "one_hot"])
@pytest.mark.parametrize("information", [False, True])
def test_the_gradient_step_is_one_graph(kind: str, information: bool, graphs: None) -> None:
    assert_the_gradient_step_is_one_graph(kind, information=information)


def assert_the_gradient_step_is_one_graph(kind: str, *, information: bool) -> None:
    loss, batch = make(kind, "team", False, False, information=information)
    minibatch = batch.reshape(-1)
    step = GradientStep({"team": loss}, torch.optim.SGD(loss.parameters(), lr=0.0), 1.0, compile=True)
    step(minibatch.clone())
    assert step.compile
    minibatch["wolves", "observation"] = torch.randn_like(minibatch["wolves", "observation"])
    assert_the_graph_gives_the_eager_gradients(step, minibatch)
