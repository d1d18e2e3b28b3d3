"""MAPPO's loss and the estimator of advantages where one network is actor and critic."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch
from tensordict import TensorDictBase
from torch import Tensor

from ctde_kit.data import OnPolicyBuffer
from ctde_kit.errors import UserError
from ctde_kit.keys import GroupKeys
from ctde_kit.modules import MultiAgentActor, MultiAgentGRU, ValueNorm, own_observation, value_critic
from ctde_kit.objectives import AdvantageEstimator, HAPPOLoss, MAPPOLoss
from ctde_kit.specs import TeamSpec
from ctde_kit.training import GradientStep, group_critics
from tests.contracts.fakes import (
    HIDDEN,
    LENGTH,
    N_ENVS,
    add_targets,
    collect,
    endings,
    group_spec,
    make_actor,
    make_network,
)

KEYS = GroupKeys()
EPSILON, ENTROPY, CRITIC = 0.2, 0.1, 0.7


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(params=[False, True], ids=["mlp", "gru"])
def recurrent(request: pytest.FixtureRequest) -> bool:
    return request.param


def team_of(**options: Any) -> TeamSpec:
    return TeamSpec((group_spec(**{"mask": True, **options}),))


def one_network(team: TeamSpec, recurrent: bool, **options: Any) -> MultiAgentActor:
    return make_actor(team["agents"], recurrent, value_head=True, **options)


def loss_of(actor: MultiAgentActor, **options: Any) -> MAPPOLoss:
    return MAPPOLoss(actor, actor.agent_network, **options)


def estimator_of(actor: MultiAgentActor, **options: Any) -> AdvantageEstimator:
    options = {"gamma": 0.9, "lmbda": 0.8, **options}
    return AdvantageEstimator(actor.agent_network, KEYS, **options)


def batches(team: TeamSpec, actor: MultiAgentActor) -> tuple[TensorDictBase, TensorDictBase]:
    """Two in a row: episodes go on from the first to the second."""
    first, next_root = collect(team, {"agents": actor}, *endings())
    return first, collect(team, {"agents": actor}, *endings(), next_root)[0]


def perturb(actor: MultiAgentActor) -> None:
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


def outputs_by_hand(actor: MultiAgentActor, batch: TensorDictBase, env: int, agent: int) -> Iterator[Tensor]:
    """What the network gives at each step of one agent: its logits and, in the last place, its value."""
    network: Any = actor.agent_network.network
    state = batch[KEYS("actor_hidden")][env, 0, agent] if isinstance(network, MultiAgentGRU) else None
    for step in range(LENGTH):
        x = batch[KEYS.observation][env, step, agent] * batch[KEYS.mask][env, step, agent]
        if state is None:
            first, last = network.layers
            yield last.weight[0] @ (first.weight[0] @ x + first.bias[0]).tanh() + last.bias[0]
            continue
        if step > 0 and batch["is_init"][env, step]:
            state = torch.zeros(HIDDEN)
        (encoder,), gates, past, head = network.encoder, network.input_gates, network.hidden_gates, network.head
        encoded = (encoder.weight[0] @ x + encoder.bias[0]).tanh()
        of_input = (gates.weight[0] @ encoded + gates.bias[0]).chunk(3)
        of_state = (past.weight[0] @ state + past.bias[0]).chunk(3)
        reset, update = (of_input[0] + of_state[0]).sigmoid(), (of_input[1] + of_state[1]).sigmoid()
        state = (1 - update) * (of_input[2] + reset * of_state[2]).tanh() + update * state
        yield head.weight[0] @ state + head.bias[0]


def loss_by_hand(actor: MultiAgentActor, batch: TensorDictBase) -> Tensor:
    """The sum of the three losses, one agent's step after the other."""
    terms = []
    for env in range(N_ENVS):
        for agent in range(3):
            for step, outputs in enumerate(outputs_by_hand(actor, batch, env, agent)):
                if not batch[KEYS.mask][env, step, agent]:
                    continue

                def at(name: str, place: tuple[int, int, int] = (env, step, agent)) -> Tensor:
                    return batch[KEYS(name)][place].squeeze()

                log_probs, value = outputs[:-1].log_softmax(0), outputs[-1]
                ratio = (log_probs[at("action")] - at("action_log_prob")).exp()
                clipped = min(max(ratio, torch.tensor(1 - EPSILON)), torch.tensor(1 + EPSILON))
                gain = min(ratio * at("advantage"), clipped * at("advantage"))
                entropy = -(log_probs.exp() * log_probs).sum()
                terms.append(CRITIC * (value - at("value_target")) ** 2 / 2 - gain - ENTROPY * entropy)
    return torch.stack(terms).mean()


def test_loss_and_gradient_are_those_of_a_loop(recurrent: bool, double: None) -> None:
    team = team_of()
    actor = one_network(team, recurrent)
    batch = add_targets(batches(team, actor)[1], KEYS)
    perturb(actor)
    loss = loss_of(actor, clip_epsilon=EPSILON, entropy_coeff=ENTROPY, critic_coeff=CRITIC, value_loss="l2")
    losses = loss(batch)
    assert losses["clip_fraction"] > 0
    assert not batch[KEYS.mask].all()
    totals = losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"], loss_by_hand(actor, batch)
    torch.testing.assert_close(*totals, rtol=0, atol=1e-6)
    ours, by_hand = (torch.autograd.grad(total, list(actor.parameters())) for total in totals)
    for one, other in zip(ours, by_hand, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
        assert one.any()


@pytest.mark.parametrize("policy", ["logits", "scale", "learned scale"])
def test_fresh_values_and_policies_are_those_of_the_loss(policy: str, recurrent: bool) -> None:
    """At unchanged weights the ratio is 1, and each value is the old one: in slices, and in the middle of episodes."""
    team = team_of(kind="categorical" if policy == "logits" else "continuous")
    actor = one_network(team, recurrent, learned_scale=policy == "learned scale")
    # A new estimator: nothing is carried from the first batch to the second.
    batch = estimator_of(actor)(batches(team, actor)[1])
    batch[KEYS.value_target] = batch[KEYS.state_value]
    loss, buffer = loss_of(actor, value_loss="l2"), OnPolicyBuffer(N_ENVS * LENGTH, 1 if recurrent else None)
    buffer.extend(batch)
    for given in (batch, next(iter(buffer))):
        losses = loss(given)
        assert losses["approx_kl"].abs() < 1e-8
        assert losses["loss_critic"].abs() < 1e-10
    perturb(actor)
    assert loss(batch)["loss_critic"] > 1e-6


@torch.no_grad()
def test_values_are_those_of_the_steps_that_were_collected(recurrent: bool) -> None:
    team = team_of(mask=False)
    actor = one_network(team, recurrent)
    estimator = estimator_of(actor, gamma=1.0, lmbda=0.0)
    for batch in batches(team, actor):
        collected, hidden = batch[KEYS.state_value].clone(), batch.get(KEYS("actor_hidden"), torch.zeros(1)).clone()
        after = batch["next"].clone().set("is_init", torch.zeros(N_ENVS, LENGTH, 1, dtype=torch.bool))
        next_value = actor.agent_network(after)[KEYS.state_value]
        estimator(batch)
        torch.testing.assert_close(batch[KEYS.state_value], collected, rtol=0, atol=1e-5)
        expected = batch["next", "agents", "reward"] + next_value * ~batch["next", "terminated"].unsqueeze(-1)
        torch.testing.assert_close(batch[KEYS.value_target], expected, rtol=0, atol=1e-5)
        assert torch.equal(batch.get(KEYS("actor_hidden"), torch.zeros(1)), hidden)
    assert estimator.critic_hidden is None


@pytest.mark.parametrize("garbage", [1e30, torch.nan])
def test_the_dead_change_nothing(garbage: float, recurrent: bool) -> None:
    team = team_of()
    actor = one_network(team, recurrent)
    batch = batches(team, actor)[1]
    results = []
    for fill in (0.0, garbage):
        given, norm = batch.clone(), ValueNorm()
        for name in ("observation", "action_log_prob", "state_value"):
            given[KEYS(name)][~given[KEYS.mask]] = fill
        given["next", "agents", "reward"][~given[KEYS.mask]] = fill
        losses = loss_of(actor, value_norm=norm)(estimator_of(actor, value_norm=norm)(given))
        total = losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]
        results.append([*losses.values(), *norm.buffers(), *torch.autograd.grad(total, list(actor.parameters()))])
    for clean, dirty in zip(*results, strict=True):
        assert torch.equal(clean, dirty)


def test_a_stored_hidden_state_must_be_there() -> None:
    team = team_of()
    actor = one_network(team, recurrent=True)
    batch = batches(team, actor)[0].exclude(KEYS("actor_hidden"))
    with pytest.raises(UserError, match=r"'actor_hidden'\)"):
        estimator_of(actor)(batch)


def test_a_network_that_gives_no_value_is_refused() -> None:
    team = team_of()
    actor = one_network(team, recurrent=False)
    batch = estimator_of(actor)(batches(team, actor)[0])
    loss = MAPPOLoss(actor, actor.agent_network)
    loss.set_keys(value=("agents", "other_value"))
    batch.set(("agents", "other_value"), torch.zeros_like(batch.get(KEYS.state_value)))
    with pytest.raises(UserError, match=r"other_value'\).*the critic writes it"):
        loss(batch)
    group, inputs = team["agents"], own_observation(team["agents"])
    network = make_network(False)(inputs.features, group.action.n_parameters, group.n_agents)
    plain = MultiAgentActor(group, inputs, network)
    with pytest.raises(UserError, match=r"MAPPOLoss: .* writes no value; make the actor with value_head=True"):
        MAPPOLoss(plain, plain.agent_network)


@pytest.mark.parametrize("shared", [True, False])
def test_one_pass_gives_policy_and_value(shared: bool, recurrent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    team = team_of()
    actor = one_network(team, recurrent)
    critic = actor.agent_network if shared else value_critic(team, team["agents"], make_network(recurrent))
    batch = estimator_of(actor)(batches(team, actor)[0])
    passes = []
    name = "unroll" if recurrent else "forward"
    kind = type(actor.agent_network.network)
    original = getattr(kind, name)
    monkeypatch.setattr(kind, name, lambda self, *inputs: (passes.append(self), original(self, *inputs))[1])
    if not shared and recurrent:
        batch.set("agents_critic_hidden", torch.zeros(N_ENVS, LENGTH, 1, HIDDEN))
    MAPPOLoss(actor, critic)(batch)
    assert len(passes) == (1 if shared else 2)


def test_parameters_count_once(recurrent: bool) -> None:
    team = team_of()
    actor = one_network(team, recurrent)
    loss = loss_of(actor)
    parameters = list(actor.parameters())
    assert [id(parameter) for parameter in loss.parameters()] == [id(parameter) for parameter in parameters]
    assert len(loss.state_dict()) == len(actor.state_dict())
    step = GradientStep({"agents": loss}, torch.optim.SGD(loss.parameters(), lr=1.0), max_grad_norm=1e-3)
    batch = estimator_of(actor)(batches(team, actor)[0])
    losses = loss(batch)
    total = losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]
    norm = torch.cat([part.flatten() for part in torch.autograd.grad(total, parameters)]).norm()
    before = torch.cat([parameter.detach().flatten().clone() for parameter in parameters])
    torch.testing.assert_close(step(batch)["grad_norm"], norm, rtol=1e-4, atol=0)
    moved = torch.cat([parameter.detach().flatten() for parameter in parameters]) - before
    assert moved.norm().item() == pytest.approx(1e-3, rel=1e-2)
    # Its critic is no network that another learner could take over without the policy.
    with pytest.raises(UserError, match="expected losses with critics"):
        group_critics(step)


def test_the_critic_follows_a_loss_that_is_copied_or_moved() -> None:
    loss = deepcopy(loss_of(one_network(team_of(), recurrent=False))).double()
    actor: Any = loss.actor_network
    assert loss.critic_network is actor.agent_network
    assert {parameter.dtype for parameter in loss.critic_network.parameters()} == {torch.float64}


def test_happo_needs_a_critic_of_its_own() -> None:
    actor = one_network(team_of(), recurrent=False, share=False)
    with pytest.raises(UserError, match=r"HAPPOLoss: critic is the actor's own network.*value_critic\(") as error:
        HAPPOLoss(actor, actor.agent_network)
    assert "\n" not in str(error.value)
