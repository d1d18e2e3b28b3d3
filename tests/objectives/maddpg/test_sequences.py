"""MADDPG's loss on sequences and under masks: resets inside, burn-in, padding, the dead."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import TensorDictBase
from torch import Tensor

from ctde_kit.errors import UserError
from ctde_kit.modules import MultiAgentDeterministicActor, QMixer, action_value_critic, own_observation
from ctde_kit.objectives import MADDPGLoss, MinimaxAdversary, NStepReturn, TDLambdaReturn, TeamReward
from ctde_kit.specs import GroupSpec, TeamSpec
from tests.contracts.fakes import SHARINGS, collect, endings, group_spec, make_network
from tests.objectives.maddpg import formulas

LENGTH, GAMMA = 9, 0.9
VALUE, HIDDEN, CRITIC = ("agents", "state_action_value"), ("agents", "actor_hidden"), "agents_critic_hidden"


def make_actor(group: GroupSpec, recurrent: bool, share: Any = False) -> MultiAgentDeterministicActor:
    network = make_network(recurrent, share)(group.observation_dim, group.action.vector_dim, group.n_agents)
    return MultiAgentDeterministicActor(group, own_observation(group), network)


def case(
    share: Any = False,
    recurrent: bool = True,
    group: GroupSpec | None = None,
    mixed: bool = False,
    own: bool = False,
    **options: Any,
) -> tuple[MADDPGLoss, TensorDictBase]:
    """A loss whose targets are other networks, and a batch with ends inside, from the middle of episodes."""
    group = group or group_spec(kind="continuous")
    team = TeamSpec((group,), 4)
    actors = {"agents": make_actor(group, recurrent, share)}
    heads: Any = "agent" if share is True else "network"
    layout: dict[str, Any] = {"sees": "observation"} if own else {"heads": heads}
    critic = action_value_critic(team, group, make_network(recurrent, share), **layout)
    _, next_root = collect(team, actors, *endings(length=LENGTH))
    batch, _ = collect(team, actors, *endings(length=LENGTH), next_root)
    batch = TeamReward(team, "sum")(batch)
    if not group.action.discrete:
        batch["agents", "action"] = actors["agents"]._squash(torch.randn_like(batch["agents", "action"]))
    loss = MADDPGLoss(
        actors,
        {"agents": critic},
        QMixer(team) if mixed else None,
        gamma=GAMMA,
        **(formulas.PLAIN | options),
    )
    for parameter in loss.target_networks.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return loss, batch


def actor_steps(network: Any, batch: TensorDictBase) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs at each step and at each next observation, one step after the other."""
    here, following, hidden = [], [], batch[HIDDEN][:, 0]
    never = torch.zeros_like(batch["is_init"][:, 0])
    for t in range(batch.shape[1]):
        out = network(batch[:, t].copy().set(HIDDEN, hidden).set("is_init", batch["is_init"][:, t] if t else never))
        hidden = out["next", "agents", "actor_hidden"]
        here.append(out["agents", "loc"])
        after = batch["next"][:, t].copy().set(HIDDEN, hidden).set("is_init", never)
        following.append(network(after)["agents", "loc"])
    return here, following


def by_hand(loss: MADDPGLoss, batch: TensorDictBase) -> tuple[Tensor, Tensor]:
    """Every step's actor and critic loss ``[B, T, n, 1]``: single steps, and each agent by itself."""
    actor, critic = loss.actors["agents"], loss.critics["agents"]
    now, _ = actor_steps(actor.agent_network, batch)
    _, later = actor_steps(loss.target_networks["actor_agents"], batch)
    policies, values = [], []
    never = torch.zeros_like(batch["is_init"][:, 0])
    hidden, target_hidden = (torch.zeros(len(batch), *critic.hidden_shape) for _ in range(2))
    for t in range(batch.shape[1]):
        is_init = batch["is_init"][:, t] if t else never
        step = batch[:, t].copy().set(("agents", "action_vector"), batch["agents", "action"][:, t])
        step.set("is_init", is_init)
        own = actor._squash(now[t])
        rows = []
        for i in range(3):
            joint = torch.stack([own[:, j] if j == i else step["agents", "action"][:, j] for j in range(3)], 1)
            changed = step.copy().set(("agents", "action_vector"), joint).set(CRITIC, hidden)
            rows.append(-critic(changed)[VALUE][:, i])
        policies.append(torch.stack(rows, 1))
        out = critic(step.copy().set(CRITIC, hidden))
        hidden = out["next", CRITIC].detach()
        old = loss.target_networks["critic_agents"](step.copy().set(CRITIC, target_hidden))
        target_hidden = old["next", CRITIC]
        after = batch["next"][:, t].copy().set(CRITIC, target_hidden).set("is_init", never)
        after.set(("agents", "action_vector"), actor._squash(later[t]))
        following = loss.target_networks["critic_agents"](after)[VALUE]
        bootstrap = following.masked_fill(batch["next", "terminated"][:, t].unsqueeze(-1), 0)
        target = batch["next", "agents", "reward"][:, t] + GAMMA * bootstrap
        values.append((out[VALUE] - target.detach()).square() / 2)
    return torch.stack(policies, 1), torch.stack(values, 1)


@pytest.mark.parametrize("own", [False, True], ids=["central", "own"])
@pytest.mark.parametrize("adversary", [None, MinimaxAdversary(0.0)], ids=["swapped", "rows"])
@pytest.mark.parametrize("share", SHARINGS)
def test_sequences_equal_single_steps_across_resets(share: Any, adversary: Any, own: bool) -> None:
    loss, batch = case(share, own=own, adversary=adversary)
    assert batch["is_init"][:, 1:].any()
    policy, value = by_hand(loss, batch)
    found = loss(batch)
    torch.testing.assert_close(found["loss_value"], value.mean(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found["loss_actor"], policy.mean(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("burn_in", [0, 3])
def test_sequences_of_a_team_equal_single_steps(burn_in: int) -> None:
    loss, batch = case(mixed=True, own=True, burn_in=burn_in)
    policy, value = team_by_hand(loss, batch)
    found = loss(batch)
    torch.testing.assert_close(found["loss_value"], value[:, burn_in:].mean(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found["loss_actor"], policy[:, burn_in:].mean(), rtol=1e-5, atol=1e-6)


def team_by_hand(loss: MADDPGLoss, batch: TensorDictBase) -> tuple[Tensor, Tensor]:
    """Every step's losses ``[B, T, 1]`` of FACMAC, one step after the other."""
    actor, critic, chosen = loss.actors["agents"], loss.critics["agents"], ("agents", "chosen_action_value")
    now, _ = actor_steps(actor.agent_network, batch)
    _, later = actor_steps(loss.target_networks["actor_agents"], batch)
    never, vector = torch.zeros_like(batch["is_init"][:, 0]), ("agents", "action_vector")
    hidden, target_hidden = (torch.zeros(len(batch), *critic.hidden_shape) for _ in range(2))

    def mix(mixer: Any, step: TensorDictBase, values: TensorDictBase) -> Tensor:
        return mixer(step.copy().set(chosen, values[VALUE]))["chosen_action_value"]

    policies, values = [], []
    for t in range(batch.shape[1]):
        step = batch[:, t].copy().set("is_init", batch["is_init"][:, t] if t else never)
        current = critic(step.copy().set(vector, actor._squash(now[t])).set(CRITIC, hidden))
        policies.append(-mix(loss.mixer, step, current))
        step.set(vector, batch["agents", "action"][:, t])
        out = critic(step.copy().set(CRITIC, hidden))
        old = loss.target_networks["critic_agents"](step.copy().set(CRITIC, target_hidden))
        hidden, target_hidden = out["next", CRITIC].detach(), old["next", CRITIC]
        after = batch["next"][:, t].copy().set(CRITIC, target_hidden).set("is_init", never)
        following = loss.target_networks["critic_agents"](after.set(vector, actor._squash(later[t])))
        bootstrap = mix(loss.target_networks["mixer"], batch["next"][:, t], following)
        target = batch["next", "reward"][:, t] + GAMMA * bootstrap.masked_fill(batch["next", "terminated"][:, t], 0)
        values.append((mix(loss.mixer, step, out) - target.detach()).square() / 2)
    return torch.stack(policies, 1), torch.stack(values, 1)


@pytest.mark.parametrize("ends", [False, True])
def test_an_agents_own_end_cuts_its_trace(ends: bool) -> None:
    loss, batch = case(recurrent=False, returns=TDLambdaReturn(0.7))
    for flag in ("done", "terminated"):
        batch["next", flag] = torch.zeros_like(batch["next", flag])
        batch["next", "agents", flag] = torch.zeros(*batch.shape, 3, 1, dtype=torch.bool)
    batch["is_init"] = torch.zeros_like(batch["is_init"])
    batch["next", "agents", "done"][:, 4, 1] = ends
    richer = batch.clone()
    richer["next", "agents", "reward"][:, 5, 1] += 10.0
    # A reward at step 5 is in the targets of steps 5, 4, ... 0, or of step 5 alone.
    steps = 1 if ends else 6
    gained = 10.0 * sum((GAMMA * 0.7) ** k for k in range(steps))
    found = (loss(richer)["target_value"] - loss(batch)["target_value"]) * 3 * LENGTH
    assert found.item() == pytest.approx(gained, rel=1e-4)


@pytest.mark.parametrize("burn_in", [2, 3, 5])
def test_burn_in_steps_are_in_no_mean_and_give_no_gradient(burn_in: int) -> None:
    loss, batch = case(burn_in=burn_in)
    policy, value = by_hand(loss, batch)
    batch["next", "agents", "reward"][:, :burn_in] = torch.nan
    observation = batch["agents", "observation"].requires_grad_()
    found = loss(batch)
    torch.testing.assert_close(found["loss_value"], value[:, burn_in:].mean(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found["loss_actor"], policy[:, burn_in:].mean(), rtol=1e-5, atol=1e-6)
    for name in ("loss_actor", "loss_value"):
        (gradient,) = torch.autograd.grad(found[name], observation, retain_graph=True)
        assert not gradient[:, :burn_in].any()
        assert gradient[:, burn_in:].any(-1).all()


def test_actors_of_unshared_parameters_are_apart_in_sequences_too() -> None:
    loss, batch = case(share=False)
    weights = [*loss.actors["agents"].agent_network.network.parameters()]
    critic = loss.critics["agents"]
    plain = critic.own_action_values
    for agent in range(3):
        keep = torch.zeros(3, 1)
        keep[agent] = 1
        critic.own_action_values = lambda *a, keep=keep: plain(*a) * keep
        moved = [g.flatten(1).any(1) for g in torch.autograd.grad(loss(batch)["loss_actor"], weights)]
        assert all(row.tolist() == [i == agent for i in range(3)] for row in moved)
    critic.own_action_values = plain


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("kind", ["continuous", "categorical"])
def test_what_stands_in_dead_agents_entries_matters_nowhere(kind: str, recurrent: bool, mixed: bool) -> None:
    group = group_spec(kind=kind, mask=True)
    options: dict[str, Any] = {"action_regularization": 0.1, "team_weight": 0.0 if mixed else 0.5}
    loss, batch = case(group=group, recurrent=recurrent, mixed=mixed, **options)
    weights = [p for p in loss.parameters() if p.requires_grad]

    def everything(data: TensorDictBase) -> list[Tensor]:
        torch.manual_seed(1)
        found = loss(data)
        total = found["loss_actor"] + found["loss_value"]
        gradients = torch.autograd.grad(total, weights, allow_unused=True)
        return [*found.values(), *[g for g in gradients if g is not None], data["td_error"]]

    before = everything(batch.clone())
    assert all(value.isfinite().all() for value in before)
    dead = ~batch["agents", "mask"]
    assert dead.any()
    for garbage in (1e30, torch.inf, torch.nan):
        data = batch.clone()
        data["agents", "observation"][dead] = garbage
        if not mixed:
            data["next", "agents", "reward"][dead] = garbage
        gone = dead & ~batch["next", "agents", "mask"]
        data["next", "agents", "observation"][gone] = garbage
        if kind == "continuous":
            data["agents", "action"][dead] = garbage
        for plain, other in zip(before, everything(data), strict=True):
            torch.testing.assert_close(plain, other)


@pytest.mark.parametrize("mixed", [False, True])
def test_padding_is_in_no_mean(mixed: bool) -> None:
    loss, batch = case(recurrent=False, group=group_spec(kind="continuous"), mixed=mixed, own=mixed)
    short = loss(batch[:, :5].clone())
    data = batch.clone().set(("collector", "mask"), torch.arange(LENGTH).expand(len(batch), -1) < 5)
    for garbage in (0.0, 1e30, torch.nan):
        data["next", "agents", "reward"][:, 5:] = data["next", "reward"][:, 5:] = garbage
        data["agents", "observation"][:, 5:] = garbage
        found = loss(data.clone())
        for name in ("loss_actor", "loss_value", "td_error", "target_value"):
            torch.testing.assert_close(found[name], short[name])


def test_targets_take_an_action_that_is_allowed_next() -> None:
    loss, batch = case(recurrent=False, group=group_spec(action_mask=True))
    before = loss(batch)["target_value"]
    best = torch.zeros_like(batch["next", "agents", "action_mask"])
    best[..., 3] = True
    other = loss(batch.clone().set(("next", "agents", "action_mask"), best))["target_value"]
    assert other != before
    for parameter in loss.target_networks["actor_agents"].parameters():
        parameter.add_(torch.randn_like(parameter))
    torch.testing.assert_close(
        loss(batch.clone().set(("next", "agents", "action_mask"), best))["target_value"], other
    )  # one action is allowed, so the target policy has no choice


@pytest.mark.parametrize("returns", [NStepReturn(3), TDLambdaReturn(0.7)])
def test_longer_returns_need_sequences(returns: Any) -> None:
    loss, batch = case(recurrent=False, returns=returns)
    assert loss(batch)["loss_value"].isfinite()
    with pytest.raises(UserError, match=r"MADDPGLoss: these returns need sequences"):
        loss(batch.reshape(-1))
    loss, batch = case()
    with pytest.raises(UserError, match=r"MADDPGLoss: recurrent networks learn sequences"):
        loss(batch.reshape(-1))
    loss.burn_in = LENGTH
    with pytest.raises(UserError, match=r"expected less than the 9 steps"):
        loss(batch)


def test_importance_weights_multiply_and_priorities_are_written() -> None:
    loss, batch = case(recurrent=False)
    items = batch.reshape(-1)
    weight = torch.rand(len(items))
    one_by_one = torch.stack([loss(items[i : i + 1].clone())["loss_value"] for i in range(len(items))])
    weighted = items.clone().set("priority_weight", weight)
    torch.testing.assert_close(loss(weighted)["loss_value"], (weight * one_by_one).mean())
    errors = torch.stack([loss(items[i : i + 1].clone())["td_error"] for i in range(len(items))])
    torch.testing.assert_close(weighted["td_error"], errors)


def test_the_state_holds_the_targets() -> None:
    loss, batch = case()
    other, _ = case()
    other.load_state_dict(loss.state_dict())
    assert torch.equal(loss(batch)["target_value"], other(batch)["target_value"])
    assert any(key.startswith("target_networks.critic_agents") for key in loss.state_dict())
