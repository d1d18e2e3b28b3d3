"""HAPPO's losses beside plain loops in float64, and parameters that are views of the group's."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.modules import set_recurrent_mode

from ctde_kit.errors import UserError
from ctde_kit.keys import GroupKeys
from ctde_kit.modules import MultiAgentActor, MultiAgentCommNet, RandomActor, ValueNorm, own_observation, value_critic
from ctde_kit.objectives import HAPPOLoss, MAPPOLoss
from ctde_kit.specs import TeamSpec
from tests.contracts.fakes import KINDS, add_targets, collect, endings, group_spec, make_actor, make_network

KEYS = GroupKeys()
ORDER = (2, 0, 1)
EPSILON, ENTROPY = 0.2, 0.3

pytestmark = pytest.mark.usefixtures("float64")


def case(kind: str, recurrent: bool = False, mask: bool = True, **options: Any) -> tuple[HAPPOLoss, TensorDictBase]:
    """A group of three of which some are dead, and a batch ``[4, 7]`` with one advantage for all of them."""
    torch.manual_seed(3)
    group = group_spec("agents", 3, kind, mask=mask, action_mask=kind == "categorical")
    team = TeamSpec((group,))
    actor = make_actor(group, recurrent, share=False, learned_scale=kind == "continuous")
    batch = add_targets(collect(team, {"agents": actor}, *endings())[0], KEYS)
    batch["agents", "advantage"] = batch["agents", "advantage"][..., :1, :].expand(-1, -1, 3, -1).clone()
    critic = value_critic(team, group, make_network(False), heads="one")
    options = {"entropy_coeff": 0.0 if kind == "continuous" else ENTROPY, "value_loss": "l2", **options}
    return HAPPOLoss(actor, critic, **options), batch


def move(learner: torch.nn.Module, scale: float = 0.3) -> None:
    with torch.no_grad():
        for parameter in learner.actor_network.parameters():
            parameter.add_(scale * torch.randn_like(parameter))


def dist_of(actor: MultiAgentActor, batch: TensorDictBase) -> Any:
    """The whole group's distributions, from its stacked parameters."""
    with set_recurrent_mode(True):
        return actor.get_dist(batch.copy())


def entropy_of(dist: Any, at: tuple[int, ...]) -> Any:
    """The entropy of one agent's choices, by a loop."""
    parts = dist.choices if hasattr(dist, "choices") else [dist]
    return sum(-sum(p * p.log() for p in part.probs[at] if p > 0) for part in parts)


def objective(actor: MultiAgentActor, batch: TensorDictBase, agent: int, before: list[int], start: Tensor) -> Any:
    """Kuba et al. 2022, eq. 11, summed up step by step; ``start`` are the log-probabilities that the batch has."""
    dist = dist_of(actor, batch)
    log_prob, total, entropy, count = dist.log_prob(batch["agents", "action"]), 0.0, 0.0, 0
    for env in range(4):
        for t in range(7):
            alive = batch["agents", "mask"][env, t]
            if not alive[agent]:
                continue
            product = 1.0
            for other in before:
                if alive[other]:
                    product *= math.exp(log_prob[env, t, other].item() - start[env, t, other].item())
            ratio = (log_prob[env, t, agent] - start[env, t, agent]).exp()
            weighted = product * batch["agents", "advantage"][env, t, agent, 0]
            total += torch.minimum(ratio * weighted, ratio.clamp(1 - EPSILON, 1 + EPSILON) * weighted)
            count += 1
            if actor.group.action.discrete:
                entropy += entropy_of(dist, (env, t, agent))
    return -total / count, (-ENTROPY * entropy / count if actor.group.action.discrete else torch.zeros(()))


@pytest.mark.parametrize("recurrent", [False, True], ids=["mlp", "gru"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_agents_loss_and_gradient_are_the_papers(kind: str, recurrent: bool) -> None:
    loss, batch = case(kind, recurrent)
    actor, start = loss.actor_network, batch["agents", "action_log_prob"].clone()
    loss.begin(batch)
    clipped = torch.zeros(3)
    for place, agent in enumerate(ORDER):
        learner = loss.for_agent(agent)
        assert learner(learner.select(batch))["approx_kl"].abs() < 1e-12  # its own policy has not moved yet
        move(learner, 0.06 if kind == "continuous" else 0.3)
        found = learner(learner.select(batch))
        parameters = list(learner.parameters())
        gradients = torch.autograd.grad(found["loss_objective"] + found["loss_entropy"], parameters)
        expected = objective(actor, batch, agent, list(ORDER[:place]), start)
        stacked = torch.autograd.grad(sum(expected), list(actor.parameters()))
        torch.testing.assert_close(found["loss_objective"], expected[0], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found["loss_entropy"], expected[1], rtol=1e-9, atol=1e-12)
        for gradient, whole in zip(gradients, stacked, strict=True):
            torch.testing.assert_close(gradient[0], whole[agent], rtol=1e-7, atol=1e-10)
            # Nobody else's parameters are in this agent's objective.
            assert not whole[[other for other in range(3) if other != agent]].any()
        clipped[agent] = found["clip_fraction"]
        loss.pass_on(batch, agent, ORDER[place + 1 :])
    assert 0.1 < clipped.mean() < 0.9  # some ratios are clipped, and some are not


@pytest.mark.parametrize("recurrent", [False, True], ids=["mlp", "gru"])
def test_the_product_is_that_of_the_ratios_before(recurrent: bool) -> None:
    loss, batch = case("categorical", recurrent)
    start = loss.begin(batch)["agents", "action_log_prob"]
    assert not batch["agents", "log_ratio_product"].any()
    for place, agent in enumerate(ORDER):
        move(loss.for_agent(agent))
        loss.pass_on(batch, agent, ORDER[place + 1 :])
    log_prob = dist_of(loss.actor_network, batch).log_prob(batch["agents", "action"]).detach()
    log_ratio = (log_prob - start).masked_fill(~batch["agents", "mask"], 0)
    expected = torch.stack([log_ratio[..., 2], log_ratio[..., 2] + log_ratio[..., 0], torch.zeros(4, 7)], -1)
    torch.testing.assert_close(batch["agents", "log_ratio_product"], expected, rtol=1e-10, atol=1e-12)


def test_with_products_of_one_it_is_mappo() -> None:
    loss, batch = case("categorical", mask=False)
    mappo = MAPPOLoss(loss.actor_network, loss.critic_network, entropy_coeff=ENTROPY, value_loss="l2")
    found, expected = loss(loss.begin(batch)), mappo(batch)
    assert all(torch.equal(found[name], expected[name]) for name in expected.keys())  # noqa: SIM118


def test_the_teams_value_counts_each_step_once_whoever_is_dead() -> None:
    norm = ValueNorm()
    norm.update(torch.tensor([-2.0, 6.0]))  # mean 2, deviation 4
    loss, batch = case("categorical", value_norm=norm, critic_coeff=0.5)
    learner = loss.for_critic()
    batch["agents", "value_target"] = batch["agents", "value_target"][..., :1, :].expand(-1, -1, 3, -1)
    batch["agents", "mask"][0] = False
    value = loss.critic_network(batch.copy())["agents", "state_value"][..., 0, 0]
    target = batch["agents", "value_target"][..., 0, 0]
    error, scale = 0.0, norm.denormalize(torch.tensor([0.0, 1.0]))
    steps = [(env, t) for env in range(4) for t in range(7) if batch["agents", "mask"][env, t].any()]
    assert 7 < len(steps) <= 21
    for env, t in steps:
        error += 0.5 * (value[env, t] - (target[env, t] - scale[0]) / (scale[1] - scale[0])) ** 2
    found = learner(learner.select(batch))
    torch.testing.assert_close(found["loss_critic"], 0.5 * error / len(steps), rtol=1e-6, atol=0)
    assert {id(p) for p in learner.parameters()} == {id(p) for p in loss.critic_network.parameters()}


def test_every_head_of_a_critic_learns_the_teams_value_though_the_first_agent_lives() -> None:
    loss, batch = case("categorical")
    loss.critic_network = value_critic(TeamSpec((loss.group,)), loss.group, make_network(False), heads="agent")
    batch["agents", "mask"][..., 0] = True
    learner = loss.for_critic()
    value = loss.critic_network(batch.copy())["agents", "state_value"].mean(-2).squeeze(-1)
    expected = 0.5 * (value - batch["agents", "value_target"][..., 0, 0]).square().mean()
    found = learner(learner.select(batch))["loss_critic"]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
    last = next(parameter for parameter in loss.critic_network.parameters() if parameter.shape[-1] == 3)
    (gradient,) = torch.autograd.grad(found, last)
    assert (gradient.reshape(-1, 3).abs().sum(0) > 0).all()


def test_a_clipped_value_is_the_teams_value_then_and_now() -> None:
    loss, batch = case("categorical")
    loss.critic_network = value_critic(TeamSpec((loss.group,)), loss.group, make_network(False), heads="agent")
    loss.clip_value = 0.05
    batch["agents", "mask"][..., 0] = True
    now = loss.critic_network(batch.copy())["agents", "state_value"].mean(-2).squeeze(-1)
    batch["agents", "state_value"] = torch.randn_like(batch["agents", "state_value"])
    then, target = batch["agents", "state_value"].mean(-2).squeeze(-1), batch["agents", "value_target"][..., 0, 0]
    near = torch.minimum(torch.maximum(now, then - 0.05), then + 0.05)
    expected = 0.5 * torch.maximum((now - target).square(), (near - target).square()).mean()
    learner = loss.for_critic()
    torch.testing.assert_close(learner(learner.select(batch))["loss_critic"], expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("garbage", [1e30, torch.inf, torch.nan])
@pytest.mark.parametrize("kind", ["continuous", "categorical"])
def test_the_dead_change_nothing(kind: str, garbage: float) -> None:
    results = []
    for dirty in (False, True):
        loss, batch = case(kind)
        loss.begin(batch)
        if dirty:
            for key in ("observation", "action_log_prob", "advantage"):
                batch["agents", key][~batch["agents", "mask"]] = garbage
        found = []
        for place, agent in enumerate(ORDER):
            learner = loss.for_agent(agent)
            move(learner)
            found += [*learner(learner.select(batch)).values()]
            loss.pass_on(batch, agent, ORDER[place + 1 :])
        results.append(torch.stack([*found, batch["agents", "log_ratio_product"].sum()]))
    assert torch.equal(*results)


def outputs(actor: MultiAgentActor, batch: TensorDictBase) -> Tensor:
    return dist_of(actor, batch).log_prob(batch["agents", "action"]).detach()


def test_the_groups_policy_and_its_agents_stay_one() -> None:
    """After ``load_state_dict``, and after the group's policy or the loss was moved to another dtype."""
    loss, batch = case("continuous")
    other, _ = case("continuous")
    move(other, 0.1)
    learners = [loss.for_agent(agent) for agent in range(3)]

    def check(data: TensorDictBase) -> None:
        loss.begin(data)
        for agent, learner in enumerate(learners):
            before = outputs(loss.actor_network, data)
            move(learner)
            after = outputs(loss.actor_network, data)
            alive = data["agents", "mask"]
            moved = ((after - before) != 0) & alive
            assert moved[..., agent].any()
            assert not moved[..., [one for one in range(3) if one != agent]].any()
            shown = learner.log_ratio(learner.select(data)).squeeze(-1)
            expected = (after - data["agents", "action_log_prob"])[..., agent].masked_fill(~alive[..., agent], 0)
            torch.testing.assert_close(shown, expected, rtol=1e-4, atol=1e-5)

    check(batch)
    loss.load_state_dict(other.state_dict())
    check(batch)
    floats = batch.apply(lambda part: part.float() if part.is_floating_point() else part)
    assert floats is not None
    loss.float()
    check(floats)
    loss.actor_network.double()
    check(batch)
    assert [id(p) for p in loss.for_agent(1).parameters()] == [id(p) for p in learners[1].parameters()]


def test_what_has_no_policy_per_agent_is_refused() -> None:
    group = group_spec("agents", 3, "continuous")
    team = TeamSpec((group,))
    critic = value_critic(team, group, make_network(False), heads="one")
    inputs = own_observation(group)
    channel = MultiAgentCommNet(inputs.features, group.action.n_parameters, 3)
    shared_scale = make_actor(group, share=False, learned_scale=True)
    shared_scale.agent_network.split = make_actor(group, learned_scale=True).agent_network.split
    refused: list[tuple[Any, str]] = [
        (make_actor(group), "agents 0 and 1 of group 'agents' share parameters"),
        (make_actor(group, share="mapped"), "agents 1 and 2 of group 'agents' share parameters"),
        (shared_scale, "also of LearnedScale"),
        (MultiAgentActor(group, inputs, channel), r"\(MultiAgentCommNet\) hears other agents' data"),
        (RandomActor(group), "actor is a RandomActor, which has no policy per agent"),
    ]
    for actor, message in refused:
        with pytest.raises(UserError, match=message) as caught:
            HAPPOLoss(actor, critic)
        assert "\n" not in str(caught.value)


def test_entries_of_other_shapes_are_refused() -> None:
    loss, batch = case("categorical")
    learner = loss.for_agent(1)
    with pytest.raises(UserError, match=r"agent 1: key .*log_ratio_product.* is missing.*HAPPOLoss.begin writes it"):
        learner(learner.select(batch))
    loss.begin(batch)
    with pytest.raises(UserError, match=r"HAPPOLoss, agent 1: .*expected .*n_agents=1"):
        learner(batch)


def test_without_keys_a_loss_reads_the_group_of_its_actor() -> None:
    group = group_spec("wolves")
    critic = value_critic(TeamSpec((group,)), group, make_network(False), heads="one")
    loss = HAPPOLoss(make_actor(group, share=False), critic)
    assert loss.tensor_keys == HAPPOLoss(make_actor(group, share=False), critic, keys=group.keys).tensor_keys
    assert loss.tensor_keys.log_ratio_product == ("wolves", "log_ratio_product")
