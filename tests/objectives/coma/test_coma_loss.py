"""COMA's losses and targets against plain loops with the paper's formulas, dead agents and masks among them."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn

from ctde_kit.errors import UserError
from ctde_kit.modules import EpsilonFloor, MultiAgentActor, TeamPolicy, own_observation, value_critic
from ctde_kit.objectives import (
    COMAActorLoss,
    COMACriticLoss,
    COMATargets,
    NStepReturn,
    TDLambdaReturn,
    counterfactual_advantage,
)
from ctde_kit.specs import TeamSpec
from tests.contracts.fakes import group_spec, make_network
from tests.objectives.coma import cases
from tests.objectives.coma.cases import EPSILON, GAMMA, herd, make, make_floored, rollout

KINDS = ["categorical", "one_hot"]

pytestmark = pytest.mark.usefixtures("float64")


def close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["wolves", "sheep"])
def test_the_critics_loss_is_that_of_the_paper(kind: str, name: str) -> None:
    team = herd(kind)
    policy, losses = make(team)
    batch, loss, group = rollout(team, policy), losses[name], team[name]
    batch[name, "value_target"] = torch.randn(*batch.shape, group.n_agents, 1)

    values = loss.critic_network.agent_network.network(cases.rows(batch, team, group))
    taken, errors = cases.index(group, batch), []
    for env, t, i in itertools.product(*map(range, (*batch.shape, group.n_agents))):
        if not group.mask or batch[name, "mask"][env, t, i]:
            error = values[env, t, i, int(taken[env, t, i])] - batch[name, "value_target"][env, t, i, 0]
            errors.append(0.5 * error**2)
    expected = torch.stack(errors).mean()
    found = loss(batch)["loss_qvalue"]
    close(found, expected)
    parameters = list(loss.critic_network.parameters())
    for one, other in zip(*(torch.autograd.grad(x, parameters) for x in (found, expected)), strict=True):
        close(one, other)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["wolves", "sheep"])
@pytest.mark.parametrize("epsilon", [0.0, EPSILON, None])
def test_the_actors_loss_is_that_of_the_paper(kind: str, name: str, epsilon: float | None) -> None:
    team = herd(kind)
    policy, losses = make(team)
    batch, group = rollout(team, policy), team[name]
    actor, critic = make_floored(group, epsilon=epsilon), losses[name].critic_network
    loss = COMAActorLoss(actor, critic, entropy_coeff=0.7)

    logits = actor.agent_network.network(batch[name, "observation"])
    values = critic.agent_network.network(cases.rows(batch, team, group))
    expected, entropy = cases.actor_loss(batch, group, logits, values, epsilon or 0.0)
    found = loss(batch)
    close(found["loss_actor"], expected)
    close(found["loss_entropy"], -0.7 * entropy)
    close(found["entropy"], entropy.detach())
    parameters = list(actor.parameters())
    ours, theirs = found["loss_actor"] + found["loss_entropy"], expected - 0.7 * entropy
    of_critic = torch.autograd.grad(ours, list(critic.parameters()), retain_graph=True, allow_unused=True)
    assert of_critic == (None,) * len(of_critic)
    for one, other in zip(*(torch.autograd.grad(x, parameters) for x in (ours, theirs)), strict=True):
        close(one, other)


@pytest.mark.parametrize("returns", [TDLambdaReturn(0.8), TDLambdaReturn(0.0), TDLambdaReturn(1.0), NStepReturn(1)])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("own_limits", [False, True])
def test_targets_are_those_of_the_paper(own_limits: bool, kind: str, returns: Any) -> None:
    team = herd(kind)
    policy, losses = make(team)
    batch = rollout(team, policy)
    batch["next", "wolves", "mask"][:, :-1] = batch["wolves", "mask"][:, 1:]  # who lives, but for the resets
    # Agents that leave have terminated, or, with limits of their own, some of them have only been stopped.
    terminated_alone = batch["wolves", "mask"] & ~batch["next", "wolves", "mask"]
    if own_limits:
        terminated_alone &= torch.rand(terminated_alone.shape) < 0.5
        batch["next", "wolves", "terminated"] = terminated_alone.unsqueeze(-1)
    at_ends = cases.drawn(team, batch)
    COMATargets(cases.Scripted(policy, at_ends), losses, gamma=GAMMA, returns=returns)(batch)

    n_envs, length = batch.shape
    done, terminated = (batch["next", flag].squeeze(-1) for flag in ("done", "terminated"))
    following = batch["next"].copy()
    for group in team:
        actions = batch[group.name, "action"]
        following[group.name, "action"] = actions.clone()
        for env, t in itertools.product(range(n_envs), range(length)):
            ends = bool(done[env, t]) or t == length - 1
            for i in range(group.n_agents):
                acts = not ends and (not group.mask or bool(batch[group.name, "mask"][env, t + 1, i]))
                source, at = (actions, t + 1) if acts else (at_ends[group.name, "action"], t)
                following[group.name, "action"][env, t, i] = source[env, at, i]
    # An agent that lived until a time limit, the team's or its own, has a value there.
    alive, goes_on = batch["wolves", "mask"].clone(), batch["next", "wolves", "mask"]
    for env, t, i in itertools.product(range(n_envs), range(length), range(3)):
        stopped = (bool(done[env, t]) or own_limits) and not bool(terminated[env, t])
        stopped = stopped and not (own_limits and bool(terminated_alone[env, t, i]))
        alive[env, t, i] = bool(goes_on[env, t, i]) or (stopped and bool(batch["wolves", "mask"][env, t, i]))
    following["wolves", "mask"] = alive
    values = {}
    for group in team:
        network = losses[group.name].target_critic.agent_network.network  # type: ignore[union-attr]
        every = network(cases.rows(following, team, group))
        values[group.name] = every.gather(-1, cases.index(group, following).unsqueeze(-1)).squeeze(-1)
    for env, t in itertools.product(range(n_envs), range(length)):
        living = [values["wolves"][env, t, i] for i in range(3) if alive[env, t, i]] + [*values["sheep"][env, t]]
        for i in range(3):
            if not alive[env, t, i]:
                values["wolves"][env, t, i] = torch.stack(living).mean()
    lmbda = returns.lmbda if isinstance(returns, TDLambdaReturn) else 0.0
    for group in team:
        for env, i in itertools.product(range(n_envs), range(group.n_agents)):
            value = values[group.name][env, :, i]
            expected = cases.targets(batch[env], value, lmbda, length, done[env], terminated[env])
            if group.mask:
                expected = expected * batch[group.name, "mask"][env, :, i]
            close(batch[group.name, "value_target"][env, :, i, 0], expected.detach())


def test_what_stands_in_the_entries_of_the_dead_changes_no_target() -> None:
    """An agent that its own limit stops is bootstrapped, while its next entry is that of a dead agent."""
    team = herd()
    policy, losses = make(team)
    batch = rollout(team, policy)
    batch["next", "wolves", "mask"][:, :-1] = batch["wolves", "mask"][:, 1:]
    batch["next", "wolves", "terminated"] = torch.zeros(*batch.shape, 3, 1, dtype=torch.bool)
    dead = ~batch["wolves", "mask"]
    assert (dead[:, 1:] & ~dead[:, :-1] & ~batch["next", "done"][:, :-1]).any()
    at_ends, changed = cases.drawn(team, batch), batch.clone()
    changed["wolves", "action"][dead] = 99
    for data in (batch, changed):
        COMATargets(cases.Scripted(policy, at_ends), losses, gamma=GAMMA)(data)
    for group in team:
        close(changed[group.name, "value_target"], batch[group.name, "value_target"])


def test_padding_is_as_if_the_batch_had_ended_before_it() -> None:
    team = herd()
    policy, losses = make(team)
    batch = rollout(team, policy)
    at_ends, kept = cases.drawn(team, batch), batch.shape[1] - 2
    short = batch[:, :kept].clone()
    COMATargets(cases.Scripted(policy, at_ends[:, :kept]), losses, gamma=GAMMA)(short)
    batch["collector", "mask"] = (torch.arange(batch.shape[1]) < kept).expand(batch.shape).clone()
    batch["next", "reward"][:, kept:] = torch.nan
    COMATargets(cases.Scripted(policy, at_ends), losses, gamma=GAMMA)(batch)
    for group in team:
        target = batch[group.name, "value_target"]
        close(target[:, :kept], short[group.name, "value_target"])
        assert not target[:, kept:].any()


def test_next_actions_are_drawn_from_the_policies_at_the_next_observation() -> None:
    """Where the episode goes on, the policy at the next observation is the one that acted there."""
    team = TeamSpec((group_spec("wolves", 3, action_mask=True), group_spec("sheep", 2, observation_dim=8)))
    policy, losses = make(team, recurrent=True)
    batch = rollout(team, policy)
    seen: list[Any] = []
    hook = policy.register_forward_hook(lambda module, args, result: seen.append(result.clone()))
    COMATargets(policy, losses, gamma=GAMMA)(batch)
    hook.remove()
    goes_on = ~batch["next", "done"][:, :-1, 0]
    for group in team:
        later = batch[group.name, "logits"][:, 1:]
        close(seen[0][group.name, "logits"][:, :-1][goes_on], later[goes_on])
        actions = seen[0][group.name, "action"]
        if group.action_mask:
            allowed = batch["next", group.name, "action_mask"].clone()
            allowed[..., 0] |= ~allowed.any(-1)
            assert allowed.gather(-1, actions.unsqueeze(-1)).all()
        assert actions.unique().numel() > 2


def test_a_recurrent_actor_learns_from_the_sequences_that_it_acted_in() -> None:
    team = herd()
    policy, losses = make(team, recurrent=True)
    batch, group = rollout(team, policy), team["sheep"]
    actor: Any = policy.actors["sheep"]
    loss = COMAActorLoss(actor, losses["sheep"].critic_network)
    values = losses["sheep"].critic_network.agent_network.network(cases.rows(batch, team, group))
    # The logits that the policy had in the rollout, step by step.
    expected, _ = cases.actor_loss(batch, group, batch["sheep", "logits"], values, EPSILON)
    found = loss(batch)["loss_actor"]
    close(found, expected)
    assert all(gradient.any() for gradient in torch.autograd.grad(found, list(actor.parameters())))
    with pytest.raises(UserError, match="COMAActorLoss: recurrent networks learn sequences"):
        loss(batch.reshape(-1))


@pytest.mark.parametrize("epsilon", [0.0, 0.4])
def test_the_advantage_has_no_expectation_under_the_policy(epsilon: float) -> None:
    group = group_spec(action_mask=True)
    logits, mask, values = torch.randn(5, 3, 6), torch.rand(5, 3, 6) < 0.6, torch.randn(5, 3, 6)
    probability = EpsilonFloor(group, epsilon).distribution(logits, mask).probs
    total = torch.zeros(5, 3)
    for action in range(6):
        advantage = counterfactual_advantage(values, probability, torch.full((5, 3), action))
        total += probability[..., action] * advantage.nan_to_num(posinf=0, neginf=0)
    close(total, torch.zeros(5, 3))


def test_values_of_forbidden_actions_change_nothing() -> None:
    mask = torch.tensor([[True, False, True]])
    probability = EpsilonFloor(group_spec(), 0.5).distribution(torch.randn(1, 3), mask).probs
    values = torch.tensor([[1.0, 2.0, 3.0]])
    expected = counterfactual_advantage(values, probability, torch.tensor([2]))
    for garbage in (1e30, torch.inf, torch.nan):
        values[0, 1] = garbage
        close(counterfactual_advantage(values, probability, torch.tensor([2])), expected)


@pytest.mark.parametrize("epsilon", [None, 0.3])
def test_with_an_exact_critic_the_gradient_is_that_of_the_teams_expected_return(epsilon: float | None) -> None:
    """A matrix game of three agents: the loss's expected gradient against that of the return, by all joint actions."""
    group = group_spec("agents", 3, observation_dim=6)
    payoff = torch.randn(6, 6, 6)
    network = make_network(False, False)(6, 6, 3)
    floor = None if epsilon is None else EpsilonFloor(group, epsilon)
    actor = MultiAgentActor(group, own_observation(group), network, floor=floor)

    class Exact(TensorDictModule):
        def __init__(self) -> None:
            super().__init__(nn.Identity(), in_keys=[group.keys.action], out_keys=[group.keys.action_value])
            self.group = group

        def forward(self, tensordict: Any) -> Any:
            a, b, c = tensordict[group.keys.action].unbind(-1)
            return tensordict.set(
                group.keys.action_value, torch.stack([payoff[:, b, c].T, payoff[a, :, c], payoff[a, b]], 1)
            )

    joint = torch.tensor([*itertools.product(range(6), repeat=3)])
    observation = torch.randn(3, 6).expand(len(joint), 3, 6)
    batch = TensorDict({"agents": {"observation": observation, "action": joint}}, [len(joint)])
    parameters = list(actor.parameters())
    policy = actor.get_dist(batch[0].copy()).probs
    returns = torch.einsum("a,b,c,abc->", *policy, payoff)
    expected = torch.autograd.grad(returns, parameters, retain_graph=True)

    chance = policy.detach().gather(1, joint.T).prod(0)
    loss = COMAActorLoss(actor, Exact())
    # The loss is a mean over agents; the policy's gradient is their sum.
    total = torch.stack([3 * p * loss(batch[i : i + 1])["loss_actor"] for i, p in enumerate(chance)]).sum()
    for one, other in zip(torch.autograd.grad(total, parameters), expected, strict=True):
        close(one, -other)


def test_targets_need_sequences_and_policies_of_all_groups() -> None:
    team = herd()
    policy, losses = make(team)
    batch = rollout(team, policy)
    with pytest.raises(UserError, match="expected sequences"):
        COMATargets(policy, losses, gamma=GAMMA)(batch.reshape(-1))
    alone = TeamPolicy({"sheep": policy.actors["sheep"]})
    with pytest.raises(UserError, match=r"COMATargets: losses are of groups \['sheep', 'wolves'\]"):
        COMATargets(alone, losses, gamma=GAMMA)


@pytest.mark.parametrize(
    ("make_critic", "message"),
    [
        (lambda team: nn.Linear(2, 2), "critic is a Linear: expected counterfactual_critic"),
        (lambda team: value_critic(team, team["sheep"], make_network(False)), "critic is a AgentNetwork: expected"),
    ],
)
def test_other_critics_are_refused(make_critic: Any, message: str) -> None:
    team = herd()
    critic = make_critic(team)
    with pytest.raises(UserError, match=f"COMACriticLoss: {message}"):
        COMACriticLoss(critic)
    with pytest.raises(UserError, match=f"COMAActorLoss: {message}"):
        COMAActorLoss(make_floored(team["sheep"]), critic)


def test_an_actor_has_the_critic_of_its_own_group() -> None:
    team = herd()
    policy, losses = make(team)
    with pytest.raises(UserError, match="expected the critic of the actor's group 'sheep', found one of 'wolves'"):
        COMAActorLoss(policy.actors["sheep"], losses["wolves"].critic_network)
