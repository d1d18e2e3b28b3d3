"""MADDPG's loss with groups that act and do not learn: frozen, recurrent, random and scripted ones."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.envs.utils import ExplorationType

from ctde_kit.errors import UserError
from ctde_kit.modules import (
    FrozenActor,
    InferredPolicies,
    MultiAgentDeterministicActor,
    OrnsteinUhlenbeckNoise,
    RandomActor,
    VDNMixer,
    action_value_critic,
    own_observation,
)
from ctde_kit.objectives import MADDPGLoss, PolicyInference, TeamReward
from ctde_kit.objectives.maddpg.next_values import with_next_actions
from ctde_kit.specs import GroupSpec, TeamSpec
from ctde_kit.training import GradientStep
from tests.contracts.fakes import collect, endings, group_spec, make_actor, make_network, make_q_actor
from tests.contracts.learning import assert_the_graph_gives_the_eager_gradients
from tests.objectives.maddpg import formulas

GAMMA, SIZE = 0.9, 7


class Scripted(TensorDictModuleBase):
    """Does half of what it sees, or chooses by it."""

    def __init__(self, group: GroupSpec):
        super().__init__()
        self.group = group
        self.in_keys, self.out_keys = [group.keys.observation], [group.keys.action]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        return tensordict.set(self.group.keys.action, self.does(tensordict[self.group.keys.observation]))

    def does(self, observation: Tensor) -> Tensor:
        return observation[..., :6].argmax(-1) if self.group.action.discrete else 0.5 * observation[..., :2]


def herd(kind: str = "continuous", sheep_kind: str = "continuous", **options: Any) -> TeamSpec:
    return TeamSpec((group_spec("wolves", 3, kind), group_spec("sheep", 2, sheep_kind, observation_dim=8, **options)))


def learner(group: GroupSpec) -> MultiAgentDeterministicActor:
    network = make_network(False, False)(group.observation_dim, group.action.vector_dim, group.n_agents)
    return MultiAgentDeterministicActor(group, own_observation(group), network)


def make(team: TeamSpec, sheep: Any, mixer: Any = None, critic: dict[str, Any] | None = None, **options: Any) -> Any:
    """A loss of the wolves alone; their targets are other networks."""
    actors: dict[str, Any] = {"wolves": learner(team["wolves"]), "sheep": sheep}
    critics = {"wolves": action_value_critic(team, team["wolves"], make_network(False), **(critic or {}))}
    loss = MADDPGLoss(actors, critics, mixer, gamma=GAMMA, **(formulas.PLAIN | options))
    for parameter in loss.target_networks.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    return loss, actors, critics


def steps_of(team: TeamSpec, sheep: Any) -> TensorDictBase:
    """A batch ``[n_envs, T]`` with ends inside, from the middle of episodes."""
    actors = {"wolves": learner(team["wolves"]), "sheep": sheep}
    _, next_root = collect(team, actors, *endings())
    return collect(team, actors, *endings(), next_root)[0]


def next_vectors(loss: MADDPGLoss, batch: TensorDictBase) -> Tensor:
    """What the sheep do next, as the targets have it."""
    wolves: Any = loss.actors["wolves"]
    vectors = {"wolves": wolves.group.action.vector(batch["wolves", "action"])}
    following = with_next_actions({"wolves": wolves, "sheep": loss.actors["sheep"]}, vectors, batch)
    return following["next", "sheep", "action_vector"]


@pytest.mark.parametrize("other_actions", ["replay", "current"])
@pytest.mark.parametrize(("kind", "sheep_kind"), [("continuous", "categorical"), ("categorical", "continuous")])
def test_losses_are_the_papers_with_what_opponents_do(kind: str, sheep_kind: str, other_actions: Any) -> None:
    team = herd(kind, sheep_kind)
    sheep = Scripted(team["sheep"])
    loss, actors, critics = make(team, sheep, other_actions=other_actions)
    batch = formulas.transitions({"wolves": actors["wolves"], "sheep": learner(team["sheep"])}, team, SIZE)
    # Whatever the opponent did, it is what stands in the replay.
    vector = team["sheep"].action.vector
    opponents = {"sheep": (vector(batch["sheep", "action"]), vector(sheep.does(batch["next", "sheep", "observation"])))}
    torch.manual_seed(1)
    found = loss(batch)
    torch.manual_seed(1)
    learners = {"wolves": actors["wolves"]}
    policy, value = formulas.losses(
        loss, learners, critics, batch, gamma=GAMMA, current=other_actions == "current", opponents=opponents
    )
    torch.testing.assert_close(found["loss_actor"], policy, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found["loss_value"], value.float(), rtol=1e-5, atol=1e-6)
    assert set(found.keys()) == set(loss.out_keys)


def test_nothing_of_an_opponent_is_learned() -> None:
    team = herd()
    sheep = learner(team["sheep"])  # it could learn, and is given no critic
    loss, actors, _ = make(team, sheep)
    batch = formulas.transitions(actors, team, SIZE)
    found = loss(batch)
    total = found["loss_actor"] + found["loss_value"]
    assert all(g is None for g in torch.autograd.grad(total, [*sheep.parameters()], allow_unused=True))
    assert not any("sheep" in name for name in loss.target_networks)
    with torch.no_grad():
        for parameter in sheep.parameters():
            parameter.add_(0.5)
    assert not torch.equal(loss(batch)["target_value"], found["target_value"])


@pytest.mark.parametrize("exploration", [ExplorationType.DETERMINISTIC, ExplorationType.RANDOM])
@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("kind", ["continuous", "one_hot", "categorical"])
def test_a_frozen_actor_does_next_what_it_does_from_the_stored_hidden_state(
    kind: str, recurrent: bool, exploration: ExplorationType
) -> None:
    team = herd("continuous", kind, action_mask=kind != "continuous")
    actor = make_actor(team["sheep"], recurrent)
    batch = steps_of(team, actor)
    assert batch["is_init"][:, 1:].any()
    frozen = FrozenActor(actor, exploration)
    loss, *_ = make(team, frozen)
    kept = batch.select(*loss.stored_keys, strict=False)
    torch.manual_seed(1)
    found = next_vectors(loss, kept)
    after = batch["next"].copy().set("is_init", torch.zeros_like(batch["is_init"]))
    torch.manual_seed(1)
    expected = frozen(after)["sheep", "action"]
    assert torch.equal(found, team["sheep"].action.vector(expected))
    if exploration == ExplorationType.DETERMINISTIC and kind == "continuous":
        # Within an episode that is what it does one step later.
        inside = ~batch["is_init"][:, 1:].squeeze(-1)
        later = frozen(batch.copy())["sheep", "action"][:, 1:]
        torch.testing.assert_close(found[:, :-1][inside], later[inside])


def test_q_actors_masks_and_the_dead() -> None:
    team = herd("continuous", "categorical", action_mask=True, mask=True)
    actor = make_q_actor(team["sheep"])
    batch = steps_of(team, actor)
    loss, *_ = make(team, FrozenActor(actor))
    found = next_vectors(loss, batch)
    # The env writes no flags of the agents: who leaves while the team goes on is gone.
    timed_out = batch["next", "done"] & ~batch["next", "terminated"]
    alive = batch["sheep", "mask"] & timed_out | batch["next", "sheep", "mask"]
    assert not found[~alive].any()
    allowed = batch["next", "sheep", "action_mask"].clone()
    allowed[..., 0] |= ~allowed.any(-1)  # nothing is allowed: the no-op
    assert (found[alive].bool() & allowed[alive]).any(-1).all()
    assert torch.equal(found.sum(-1), alive.float())


def test_the_noise_of_a_sampled_opponent_goes_on_from_the_stored_state() -> None:
    team = herd()
    group = team["sheep"]
    actor = learner(group)
    noisy = MultiAgentDeterministicActor(
        group, own_observation(group), actor.agent_network.network, OrnsteinUhlenbeckNoise(group, 0.3, sigma=0.0)
    )
    loss, *_ = make(team, FrozenActor(noisy, ExplorationType.RANDOM))
    assert ("next", "sheep", "noise") in loss.stored_keys
    batch = steps_of(team, actor)
    batch["next", "sheep", "noise"] = torch.randn(*batch.shape, 2, 2)
    kept = batch.select(*loss.stored_keys, strict=False)
    plain, half = noisy(batch["next"].copy())["sheep", "action"], noisy.noise.half_range
    moved = plain + 0.3 * half * 0.85 * batch["next", "sheep", "noise"]
    torch.testing.assert_close(next_vectors(loss, kept), torch.minimum(torch.maximum(moved, noisy.low), noisy.high))


@pytest.mark.parametrize("recurrent", [False, True])
def test_a_missing_entry_of_an_opponent_is_named(recurrent: bool) -> None:
    team = herd()
    actor = make_actor(team["sheep"], recurrent)
    loss, *_ = make(team, FrozenActor(actor))
    batch = steps_of(team, actor)
    key = ("next", "sheep", "actor_hidden" if recurrent else "observation")
    assert key in loss.in_keys
    with pytest.raises(UserError, match=re.escape(f"key {key!r} is missing")):
        loss(batch.exclude(key))


def test_one_team_with_a_mixer_against_an_opponent() -> None:
    team = herd()
    learning = TeamSpec((team["wolves"],))
    loss, actors, critics = make(team, Scripted(team["sheep"]), VDNMixer(learning), {"sees": "observation"})
    batch = formulas.transitions({"wolves": actors["wolves"], "sheep": learner(team["sheep"])}, team, SIZE)
    batch = TeamReward(learning, "mean")(batch)
    found = loss(batch)
    now = {"wolves": formulas.current_actions(actors["wolves"], batch)}
    each = [formulas.value(critics["wolves"], "wolves", batch, now, i) for i in range(3)]
    torch.testing.assert_close(found["loss_actor"], -torch.stack(each).sum(0).mean())
    with pytest.raises(UserError, match="mixer: expected critics of the groups that it reads"):
        make(team, Scripted(team["sheep"]), VDNMixer(team), {"sees": "observation"})


def test_beliefs_of_opponents_are_refused() -> None:
    team = herd()
    inference = PolicyInference(InferredPolicies(team, make_network(False, False)))
    with pytest.raises(UserError, match="leave inference=None") as caught:
        make(team, RandomActor(team["sheep"]), inference=inference)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("opponent", ["random", "sampled", "recurrent"])
def test_the_gradient_step_with_an_opponent_is_one_graph(opponent: str) -> None:
    team = herd("continuous", "categorical" if opponent == "random" else "continuous")
    actor = make_actor(team["sheep"], opponent == "recurrent")
    modes = {"sampled": ExplorationType.RANDOM, "recurrent": ExplorationType.DETERMINISTIC}
    sheep = RandomActor(team["sheep"]) if opponent == "random" else FrozenActor(actor, modes[opponent])
    loss, *_ = make(team, sheep)
    minibatch = steps_of(team, actor).reshape(-1).select(*loss.stored_keys, strict=False)
    step = GradientStep({"team": loss}, torch.optim.SGD(loss.actors["wolves"].parameters(), lr=0.0), 1.0, compile=True)
    step(minibatch.clone())
    assert step.compile
    if opponent != "random":
        with torch.no_grad():  # weights are read anew by each call
            for parameter in sheep.parameters():
                parameter.mul_(-1.0)
    assert_the_graph_gives_the_eager_gradients(step, minibatch)
