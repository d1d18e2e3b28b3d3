"""Policies that do not learn: random, scripted, frozen, and a team with some of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torchrl.envs.utils import ExplorationType, set_exploration_type

from ctde_kit.errors import UserError
from ctde_kit.graph import trace
from ctde_kit.modules import FrozenActor, GreedyChase, RandomActor, TeamPolicy
from ctde_kit.specs import ActionSpec, GroupSpec, TeamSpec
from tests.contracts.fakes import KINDS, group_spec, make_actor, make_q_actor, observe, with_hidden

RANDOM: Any = ExplorationType.RANDOM


def predators(kind: str = "continuous", size: int = 2, n_prey: int = 1, **options) -> GroupSpec:
    """Three predators that see two obstacles; each prey adds a position and a velocity."""
    low, high = ((), ()) if kind != "continuous" else (((0.0,) * size,) * 3, ((1.0,) * size,) * 3)
    action = ActionSpec(kind, (size,), low, high)
    return GroupSpec("adversary", 3, observation_dim=12 + 4 * n_prey, action=action, **options)


def seen(group: GroupSpec, *prey: tuple[float, float]) -> TensorDict:
    """One env in which every predator sees the prey at these relative positions, and noise elsewhere."""
    observation = 100 * torch.randn(1, 3, group.observation_dim)
    observation[..., 12 : 12 + 2 * len(prey)] = torch.tensor(prey).flatten()
    return TensorDict({("adversary", "observation"): observation}, [1])


@pytest.mark.parametrize(
    ("kind", "size", "prey", "expected"),
    [
        ("continuous", 2, (0.5, -0.25), [1.0, -0.5]),
        ("continuous", 5, (0.5, -0.25), [0.0, 0.0, 1.0, 0.5, 0.0]),  # nothing, left, right, down, up
        ("continuous", 5, (-0.1, 0.2), [0.0, 0.5, 0.0, 0.0, 1.0]),
        ("categorical", 5, (0.5, -0.25), 2),
        ("categorical", 5, (-0.5, 0.25), 1),
        ("categorical", 5, (0.1, -0.25), 3),
        ("categorical", 5, (0.1, 0.25), 4),
        ("categorical", 9, (0.5, -0.25), 3 * 2 + 1),  # x forwards is choice 2, y backwards is choice 1
        ("categorical", 9, (-0.5, 0.25), 3 * 1 + 2),
        ("one_hot", 5, (0.5, -0.25), [0, 0, 1, 0, 0]),
    ],
)
def test_chase_accelerates_towards_the_prey(kind: str, size: int, prey: tuple, expected: object) -> None:
    group = predators(kind, size)
    action = GreedyChase(group)(seen(group, prey))["adversary", "action"]
    assert action.tolist() == [[expected] * 3]


@pytest.mark.parametrize(("kind", "size"), [("continuous", 2), ("categorical", 5), ("one_hot", 5)])
def test_chase_is_one_graph(kind: str, size: int) -> None:
    group = predators(kind, size)
    chase = GreedyChase(group)

    def act(leaves: list[torch.Tensor]) -> list[torch.Tensor]:
        return [chase(TensorDict({("adversary", "observation"): leaves[0]}, [1]))["adversary", "action"]]

    there, back = ([seen(group, prey)["adversary", "observation"]] for prey in ((0.5, -0.25), (-0.25, 0.125)))
    graph = trace(act, there)
    assert torch.equal(graph(back)[0], act(back)[0])
    assert not torch.equal(graph(back)[0], graph(there)[0])


def test_chase_takes_the_nearest_prey() -> None:
    group = predators("categorical", 5, n_prey=3)
    chase = GreedyChase(group, n_prey=3)
    assert chase(seen(group, (0.9, 0.0), (0.0, 0.5), (-0.7, 0.0)))["adversary", "action"].tolist() == [[4, 4, 4]]


def test_chase_of_one_agent_alone() -> None:
    group = predators("categorical", 5)
    whole = seen(group, (0.9, 0.0))
    own = TensorDict({("adversary", "observation"): whole["adversary", "observation"][:, 1]}, [1])
    assert GreedyChase(group).for_agent(1)(own)["adversary", "action"].tolist() == [2]
    with pytest.raises(UserError, match="agents 0 to 2"):
        GreedyChase(group).for_agent(3)


def test_chase_follows_the_layout_of_both_simulators() -> None:
    """The relative position that it reads is the env's own, and its action brings the two together."""
    from ctde_kit.envs.vmas import VmasEnv

    for continuous in (True, False):
        env = VmasEnv("simple_tag", num_envs=99, continuous_actions=continuous, scenario_kwargs={"num_landmarks": 0})
        env.set_seed(0)
        team = TeamSpec.from_env(env)
        chase = GreedyChase(team["adversary"], n_landmarks=0)
        assert chase.first == 8
        data = env.reset()
        before = data["adversary", "observation"][..., 8:10].norm(dim=-1)
        for _ in range(4):
            data = chase(data)
            prey = torch.zeros_like(data["agent", "observation"][..., :2]) if continuous else torch.zeros(99, 1).long()
            data = env.step_mdp(env.step(data.set(("agent", "action"), prey)))
        after = data["adversary", "observation"][..., 8:10].norm(dim=-1)
        assert (after < before).float().mean() > 0.8, continuous


def test_chase_needs_a_predators_observation_and_moves() -> None:
    with pytest.raises(UserError, match=r"expected the 16 features of a predator of simple_tag .* found 14"):
        GreedyChase(replace(predators(), observation_dim=14))
    with pytest.raises(UserError, match=r"continuous actions of size 3: expected one of \[2, 5\]"):
        GreedyChase(predators("continuous", 3))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("masked", [False, True])
def test_random_actions_are_uniform_over_what_is_allowed(kind: str, masked: bool) -> None:
    group = group_spec(n_agents=3, kind=kind, action_mask=masked and kind != "continuous")
    actor = RandomActor(group)
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        data = actor(observe(TeamSpec((group,)), 4000))
        action = data["agents", "action"]
    if kind == "continuous":
        low, high = torch.tensor(group.action.low), torch.tensor(group.action.high)
        share = (action - low) / (high - low)
        assert action.shape == (4000, 3, 2)
        assert 0 <= share.min() < 0.01
        assert 0.99 < share.max() <= 1
        assert torch.allclose(share.mean(0), torch.full((3, 2), 0.5), atol=0.03)
        return
    choices = action.long().argmax(-1) if kind == "one_hot" else action
    if masked:
        assert not choices[:, 0].any()  # the first agent is allowed nothing
        mask = data["agents", "action_mask"][:, 1:]
        chosen = choices[:, 1:]
        if kind == "multi_discrete":
            mask, chosen = mask[..., 2:], chosen[..., 1]
        nothing = ~mask.any(-1)
        assert (mask.gather(-1, chosen.unsqueeze(-1)).squeeze(-1) | nothing).all()
    else:
        counts = torch.bincount(choices.flatten() if kind != "multi_discrete" else choices[..., 1].flatten())
        assert (counts / counts.sum() - 1 / 6).abs().max() < 0.02


def test_random_action_of_one_agent_alone_has_its_own_bounds() -> None:
    group = group_spec(n_agents=3, kind="continuous")
    alone = RandomActor(group).for_agent(2)
    action = alone(TensorDict({("agents", "observation"): torch.randn(500, 5)}, [500]))["agents", "action"]
    assert action.shape == (500, 2)
    assert (group.action.low[2], group.action.high[2]) == ((-3.0, 1.0), (1.0, 3.0))
    assert torch.allclose(action.mean(0), torch.tensor([-1.0, 2.0]), atol=0.2)
    assert not list(RandomActor(group).parameters())


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("kind", ["continuous", "categorical"])
def test_frozen_actor_keeps_its_way_of_acting(kind: str, recurrent: bool) -> None:
    group = group_spec(n_agents=3, kind=kind)
    actor = make_actor(group, recurrent)
    data = with_hidden(observe(TeamSpec((group,)), 50), [actor.agent_network])
    data.set("is_init", torch.ones(50, 1, dtype=torch.bool))
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        greedy = actor(data.copy())["agents", "action"]
    with set_exploration_type(ExplorationType.RANDOM):
        assert torch.equal(FrozenActor(actor)(data.copy())["agents", "action"], greedy)
    sampled = FrozenActor(actor, RANDOM)
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        assert not torch.equal(sampled(data.copy())["agents", "action"], greedy)


def test_frozen_actor_is_a_copy_without_gradient() -> None:
    group = group_spec(n_agents=3)
    actor = make_q_actor(group)
    frozen = FrozenActor(actor)
    before = [parameter.clone() for parameter in frozen.parameters()]
    assert all(parameter.requires_grad for parameter in actor.parameters())
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert actor.training
    assert not any(part.training for part in TeamPolicy({"agents": frozen}).train().actors["agents"].actor.modules())  # type: ignore[union-attr]
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.add_(1)
    assert all(torch.equal(a, b) for a, b in zip(before, frozen.parameters(), strict=True))


def test_frozen_actor_is_saved_and_restored() -> None:
    group = group_spec(n_agents=3)
    frozen, other = FrozenActor(make_actor(group)), FrozenActor(make_actor(group))
    saved = {name: value.clone() for name, value in frozen.state_dict().items()}
    other.load_state_dict(saved)
    data = observe(TeamSpec((group,)), 50)
    assert torch.equal(frozen(data.copy())["agents", "logits"], other(data.copy())["agents", "logits"])
    for value in frozen.state_dict().values():
        value.add_(1)
    assert not torch.equal(frozen(data.copy())["agents", "logits"], other(data.copy())["agents", "logits"])
    frozen.load_state_dict(saved)
    assert torch.equal(frozen(data.copy())["agents", "logits"], other(data.copy())["agents", "logits"])


def test_frozen_agent_alone_acts_as_in_the_group() -> None:
    group = group_spec(n_agents=3)
    frozen = FrozenActor(make_actor(group, share=False))
    data = observe(TeamSpec((group,)), 50)
    own = TensorDict({("agents", "observation"): data["agents", "observation"][:, 2]}, [50])
    with set_exploration_type(ExplorationType.RANDOM):
        alone = frozen.for_agent(2)(own)["agents", "action"]
    assert torch.equal(alone, frozen(data)["agents", "action"][:, 2])


def test_learners_are_the_groups_that_take_gradients() -> None:
    groups = [group_spec("chasers", 3), group_spec("runners", 2), group_spec("others", 4)]
    policy = TeamPolicy(
        {
            "chasers": make_actor(groups[0]),
            "runners": FrozenActor(make_actor(groups[1])),
            "others": RandomActor(groups[2]),
        }
    )
    assert list(policy.learners) == ["chasers"]
    data = policy(observe(TeamSpec(tuple(groups)), 7))
    assert [data[group.name, "action"].shape for group in groups] == [(7, 3), (7, 2), (7, 4)]
    assert policy.decentralized
