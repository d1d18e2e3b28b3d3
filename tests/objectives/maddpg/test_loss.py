"""MADDPG's loss against the paper's formulas, and the rules that make it MADDPG."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from ctde_kit.errors import UserError
from ctde_kit.modules import (
    MultiAgentDeterministicActor,
    MultiAgentMLP,
    QMixer,
    VDNMixer,
    action_value_critic,
    own_observation,
)
from ctde_kit.objectives import MADDPGLoss, MinimaxAdversary, TeamReward
from ctde_kit.objectives.maddpg.joint_actions import own_action_values, own_rows, values_of_rows
from ctde_kit.specs import TeamSpec
from tests.contracts.fakes import group_spec, make_network
from tests.objectives.maddpg import formulas

GAMMA, SIZE = 0.9, 7
TEAMS = {
    "one": lambda kind: TeamSpec((group_spec("wolves", 3, kind),)),
    "two": lambda kind: TeamSpec((group_spec("wolves", 3, kind), group_spec("sheep", 2, kind, observation_dim=8)), 4),
    "mixed": lambda _: TeamSpec((group_spec("wolves", 3, "continuous"), group_spec("sheep", 2, observation_dim=8))),
}

pytestmark = pytest.mark.usefixtures("float64")


def make(team: TeamSpec, share: Any = False, mixer: Any = None, critic: dict[str, Any] | None = None, **options: Any):
    """Actors, critics and their loss; the targets are other networks than the online ones."""
    actors = {}
    for group in team:
        network = make_network(False, share)(group.observation_dim, group.action.vector_dim, group.n_agents)
        actors[group.name] = MultiAgentDeterministicActor(group, own_observation(group), network)
    factory = make_network(False, share if (critic or {}).get("heads") == "network" else True)
    critics = {group.name: action_value_critic(team, group, factory, **(critic or {})) for group in team}
    loss = MADDPGLoss(actors, critics, mixer, gamma=GAMMA, **(formulas.PLAIN | options))
    for parameter in loss.target_networks.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    return loss, actors, critics


def gradients(total: Tensor, loss: MADDPGLoss) -> list[Tensor]:
    learned = [parameter for parameter in loss.parameters() if parameter.requires_grad]
    found = torch.autograd.grad(total, learned, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(learned, found, strict=True)]


@pytest.mark.parametrize("other_actions", ["replay", "current"])
@pytest.mark.parametrize("share", [True, False, "mapped"])
@pytest.mark.parametrize(
    "critic",
    [{}, {"sees": "state"}, {"heads": "network"}, {"sees": "observation"}],
    ids=["team", "state", "net", "own"],
)
@pytest.mark.parametrize(
    ("team", "kind"),
    [("one", "continuous"), ("one", "categorical"), ("two", "continuous"), ("two", "categorical"), ("mixed", "")],
)
def test_loss_and_gradients_are_the_papers(
    team: str, kind: str, critic: dict[str, Any], share: Any, other_actions: Any
) -> None:
    spec = TEAMS[team](kind)
    if critic.get("sees") == "state" and spec.state_dim is None:
        spec = TeamSpec(spec.groups, 4)
    loss, actors, critics = make(spec, share, critic=critic, other_actions=other_actions)
    batch = formulas.transitions(actors, spec, SIZE)
    torch.manual_seed(1)
    found = loss(batch)
    torch.manual_seed(1)
    policy, value = formulas.losses(loss, actors, critics, batch, gamma=GAMMA, current=other_actions == "current")
    torch.testing.assert_close(found["loss_actor"], policy, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found["loss_value"], value, rtol=1e-9, atol=1e-9)
    # The paper's actor gradient moves actors alone, its critic gradient critics alone.
    actor_parameters = {id(p) for actor in actors.values() for p in actor.parameters()}
    learned = [parameter for parameter in loss.parameters() if parameter.requires_grad]
    ours = gradients(found["loss_actor"] + found["loss_value"], loss)
    of_policy, of_value = gradients(policy, loss), gradients(value, loss)
    for parameter, gradient, mine, theirs in zip(learned, ours, of_policy, of_value, strict=True):
        expected = mine if id(parameter) in actor_parameters else theirs
        torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-9)


def actor_gradient_matrix(loss: MADDPGLoss, actor: Any, batch: TensorDict) -> Tensor:
    """Row i: how much agent i's own part of the actor loss moves each agent's parameters."""
    rows = []
    own_value = loss.critics["wolves"].own_action_values
    for i in range(3):
        keep = torch.zeros(3, 1)
        keep[i] = 1
        loss.critics["wolves"].own_action_values = lambda *a, keep=keep: own_value(*a) * keep
        total = loss(batch)["loss_actor"]
        weights = torch.autograd.grad(total, [*actor.agent_network.network.parameters()])
        rows.append(torch.stack([g.flatten(1).norm(dim=1) for g in weights]).sum(0))
    loss.critics["wolves"].own_action_values = own_value
    return torch.stack(rows)


@pytest.mark.parametrize("other_actions", ["replay", "current"])
@pytest.mark.parametrize("kind", ["continuous", "categorical"])
def test_an_agents_loss_moves_its_own_actor_alone(kind: str, other_actions: Any) -> None:
    spec = TEAMS["one"](kind)
    loss, actors, _ = make(spec, share=False, other_actions=other_actions)
    matrix = actor_gradient_matrix(loss, actors["wolves"], formulas.transitions(actors, spec, SIZE))
    assert (matrix.diagonal() > 0).all()
    assert (matrix - matrix.diag().diag()).abs().max() == 0


def test_the_actor_loss_depends_on_the_replays_actions_unless_they_are_current() -> None:
    spec = TEAMS["two"]("continuous")
    for other_actions, depends in (("replay", True), ("current", False)):
        loss, actors, _ = make(spec, other_actions=other_actions)
        batch = formulas.transitions(actors, spec, SIZE)
        before = loss(batch)["loss_actor"]
        for name in ("wolves", "sheep"):
            changed = batch.clone()
            changed[name, "action"] = batch[name, "action"].flip(0)
            assert (loss(changed)["loss_actor"] != before).item() is depends, name


def test_targets_are_of_target_actors_and_target_critics() -> None:
    spec = TEAMS["two"]("continuous")
    loss, actors, _ = make(spec)
    batch = formulas.transitions(actors, spec, SIZE)
    before = loss(batch)["target_value"]
    for name, network in loss.online_networks().items():
        saved = [p.detach().clone() for p in network.parameters()]
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(1.0)
        assert torch.equal(loss(batch)["target_value"], before), name
        with torch.no_grad():
            for parameter, value in zip(network.parameters(), saved, strict=True):
                parameter.copy_(value)
    for name, network in loss.target_networks.items():
        saved = [p.clone() for p in network.parameters()]
        for parameter in network.parameters():
            parameter.add_(0.5)
        assert not torch.equal(loss(batch)["target_value"], before), name
        for parameter, value in zip(network.parameters(), saved, strict=True):
            parameter.copy_(value)


def test_every_critic_sees_the_other_groups_actions() -> None:
    spec = TEAMS["two"]("continuous")
    _, actors, critics = make(spec)
    batch = formulas.transitions(actors, spec, SIZE)
    done = formulas.vectors(actors, batch)
    for name, critic in critics.items():
        other = "sheep" if name == "wolves" else "wolves"
        changed = {**done, other: done[other] + 1}
        for i in range(actors[name].group.n_agents):
            before = formulas.value(critic, name, batch, done, i)
            assert not torch.equal(before, formulas.value(critic, name, batch, changed, i))


def test_time_limits_bootstrap_and_ends_do_not() -> None:
    spec = TEAMS["one"]("continuous")
    loss, actors, _ = make(spec)
    batch = formulas.transitions(actors, spec, SIZE)
    batch["next", "terminated"] = torch.zeros(SIZE, 1, dtype=torch.bool)
    batch["next", "done"] = torch.ones(SIZE, 1, dtype=torch.bool)
    truncated = loss(batch)["target_value"]
    batch["next", "done"] = torch.zeros(SIZE, 1, dtype=torch.bool)
    assert torch.equal(loss(batch)["target_value"], truncated)
    batch["next", "terminated"] = torch.ones(SIZE, 1, dtype=torch.bool)
    torch.testing.assert_close(loss(batch)["target_value"], batch["next", "wolves", "reward"].mean())
    # One agent ends by itself: its own target alone loses what follows.
    batch["next", "terminated"] = torch.zeros(SIZE, 1, dtype=torch.bool)
    own = torch.zeros(SIZE, 3, 1, dtype=torch.bool)
    own[:, 1] = True
    batch["next", "wolves", "terminated"] = own
    following = formulas.target_actions(loss, actors, batch)
    critic = loss.target_networks["critic_wolves"]
    values = [formulas.value(critic, "wolves", batch["next"], following, i) * (i != 1) for i in range(3)]
    expected = batch["next", "wolves", "reward"].squeeze(-1) + GAMMA * torch.stack(values, -1)
    torch.testing.assert_close(loss(batch)["target_value"], expected.mean())


class Sums(TensorDictModuleBase):
    """Agent i's value: the sum of all actions, and ten times its own."""

    def __init__(self) -> None:
        super().__init__()
        self.in_keys = [("wolves", "action_vector"), ("wolves", "observation")]
        self.out_keys = [("wolves", "state_action_value")]
        self.bias = torch.nn.Parameter(torch.zeros(()))

    def forward(self, tensordict):
        action = tensordict["wolves", "action_vector"]
        value = action.sum((-2, -1)).unsqueeze(-1) + 10 * action.sum(-1) + self.bias
        return tensordict.set(("wolves", "state_action_value"), value.unsqueeze(-1))


def test_by_hand() -> None:
    """Two agents with one action in [-1, 1], policies 0; any critic module fits."""
    from ctde_kit.specs import ActionSpec, GroupSpec

    group = GroupSpec("wolves", 2, 1, ActionSpec("continuous", (1,), ((-1.0,), (-1.0,)), ((1.0,), (1.0,))))
    network = MultiAgentMLP(1, 1, 2, num_cells=())
    torch.nn.init.zeros_(network.layers[0].weight)
    torch.nn.init.zeros_(network.layers[0].bias)
    actor = MultiAgentDeterministicActor(group, own_observation(group), network)
    loss = MADDPGLoss({"wolves": actor}, {"wolves": Sums()}, gamma=0.5, team_weight=0.25, **formulas.PLAIN)
    with torch.no_grad():
        loss.target_networks["actor_wolves"].network.layers[0].bias.fill_(100.0)  # target actors do 1
        loss.target_networks["critic_wolves"].bias.fill_(3.0)  # and their value is 1 + 1 + 10 + 3
    batch = TensorDict(
        {"wolves": {"observation": torch.ones(1, 2, 1), "action": torch.tensor([[[0.5], [-0.25]]])}}, [1]
    )
    batch["next"] = {"wolves": {"observation": torch.ones(1, 2, 1), "reward": torch.tensor([[[4.0], [8.0]]])}}
    batch["next", "done"] = batch["next", "terminated"] = torch.zeros(1, 1, dtype=torch.bool)
    found = loss(batch)
    values = [0.25 + 5, 0.25 - 2.5]
    targets = [0.75 * 4 + 0.25 * 6 + 0.5 * 15, 0.75 * 8 + 0.25 * 6 + 0.5 * 15]
    errors = [v - t for v, t in zip(values, targets, strict=True)]
    assert found["loss_value"].item() == pytest.approx(sum(e**2 for e in errors) / 2 / 2)
    assert found["target_value"].item() == pytest.approx(sum(targets) / 2)
    # With its own action 0 and the other's from the replay.
    assert found["loss_actor"].item() == pytest.approx(-(-0.25 + 0.5) / 2)
    assert batch["td_error"].item() == pytest.approx(sum(map(abs, errors)) / 2)


def test_the_dead_do_nothing_for_critics_that_do_not_mask() -> None:
    spec = TeamSpec((group_spec("wolves", 3, "continuous", mask=True),))
    _, actors, _ = make(spec)
    loss = MADDPGLoss(actors, {"wolves": Sums()}, gamma=GAMMA, other_actions="current", **formulas.PLAIN)
    batch = formulas.transitions(actors, spec, SIZE)
    batch["wolves", "mask"] = batch["next", "wolves", "mask"] = torch.tensor([True, False, True]).expand(SIZE, 3)
    before = loss(batch.clone())
    batch["wolves", "action"][:, 1] = 7.0
    with torch.no_grad():  # and whatever its policies would do there
        for network in (actors["wolves"].agent_network, loss.target_networks["actor_wolves"]):
            for parameter in network.parameters():
                parameter[1] += 1
    for name, value in loss(batch).items():
        torch.testing.assert_close(value, before[name], msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(
    "critic", [{}, {"heads": "network"}, {"agent_id": True}, {"heads": "one"}, {"heads": "network", "own_first": True}]
)
@pytest.mark.parametrize("recurrent", [False, True])
def test_swapping_the_own_action_is_the_same_as_all_joint_actions(critic: dict[str, Any], recurrent: bool) -> None:
    spec = TEAMS["two"]("continuous")
    group = spec["sheep"]
    module = action_value_critic(spec, group, make_network(recurrent, "heads" not in critic), **critic)
    data = TensorDict({}, [SIZE, 3])
    for other in spec:
        data[other.name, "observation"] = torch.randn(SIZE, 3, other.n_agents, other.observation_dim)
        data[other.name, "action_vector"] = torch.randn(SIZE, 3, other.n_agents, other.action.vector_dim)
    if recurrent:
        data[module.hidden_key] = torch.randn(SIZE, 3, *module.hidden_shape)
        data["is_init"] = torch.zeros(SIZE, 3, 1, dtype=torch.bool)
    own = torch.randn(SIZE, 3, 2, 2)
    fast = own_action_values(module, group.keys, data, own)
    plain = values_of_rows(module, group.keys, data, {"sheep": own_rows(data["sheep", "action_vector"], own)})
    assert fast.shape == (SIZE, 3, 2, 1)
    torch.testing.assert_close(fast, plain, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["continuous", "categorical"])
@pytest.mark.parametrize("critic", [{}, {"heads": "network"}])
def test_minimax_without_a_step_is_maddpg(kind: str, critic: dict[str, Any]) -> None:
    spec = TEAMS["two"](kind)
    loss, actors, _ = make(spec, critic=critic)
    batch = formulas.transitions(actors, spec, SIZE)
    results = []
    for adversary in (None, MinimaxAdversary(0.0), MinimaxAdversary(0.1)):
        loss.adversary = adversary
        torch.manual_seed(1)
        found = loss(batch.clone())
        results.append([found["loss_actor"], found["loss_value"], *gradients(sum(found[k] for k in LOSSES), loss)])
    for plain, zero in zip(results[0], results[1], strict=True):
        torch.testing.assert_close(plain, zero, rtol=1e-10, atol=1e-12)
    assert results[2][0] > results[0][0]  # others who do their worst leave less to gain
    assert results[2][1] != results[0][1]


LOSSES = ("loss_actor", "loss_value")


def test_minimax_moves_others_against_each_agent_by_the_gradient() -> None:
    spec = TEAMS["two"]("continuous")
    _, actors, critics = make(spec)
    batch = formulas.transitions(actors, spec, SIZE)
    done = {name: vector.requires_grad_(True) for name, vector in formulas.vectors(actors, batch).items()}
    data = batch.copy()
    for name, vector in done.items():
        data[name, "action_vector"] = vector.detach()
    own = torch.randn(SIZE, 3, 2)
    rows = MinimaxAdversary(0.3)(critics["wolves"], spec["wolves"].keys, data, own)
    for i in range(3):
        joint = {name: vector.detach().clone() for name, vector in done.items()}
        joint["wolves"][:, i] = own[:, i]
        leaves = {name: vector.requires_grad_(True) for name, vector in joint.items()}
        value = formulas.value(critics["wolves"], "wolves", batch, leaves, i).sum()
        slopes = dict(zip(leaves, torch.autograd.grad(value, [*leaves.values()]), strict=True))
        slopes["wolves"][:, i] = 0
        for name in leaves:
            torch.testing.assert_close(rows[name][:, i], (joint[name] - 0.3 * slopes[name]).detach())


@pytest.mark.parametrize("mixer", [VDNMixer, QMixer, lambda team: QMixer(team, monotonic=False)])
@pytest.mark.parametrize("kind", ["continuous", "categorical"])
def test_facmac_by_its_formulas(kind: str, mixer: Any) -> None:
    spec = TEAMS["two"](kind)
    loss, actors, critics = make(spec, mixer=mixer(spec), critic={"sees": "observation"})
    batch = TeamReward(spec, "mean")(formulas.transitions(actors, spec, SIZE))

    def mixed(which: Any, networks: dict[str, Any], observations: Any, actions: dict[str, Tensor]) -> Tensor:
        data = observations.copy()
        for name in actors:
            n_agents = actors[name].group.n_agents
            values = [formulas.value(networks[name], name, observations, actions, i) for i in range(n_agents)]
            data[name, "chosen_action_value"] = torch.stack(values, -1).unsqueeze(-1)
        return which(data)["chosen_action_value"]

    torch.manual_seed(1)
    found = loss(batch.clone())
    torch.manual_seed(1)
    now = {name: formulas.current_actions(actor, batch) for name, actor in actors.items()}
    target_critics = {name: loss.target_networks[f"critic_{name}"] for name in actors}
    following = formulas.target_actions(loss, actors, batch)
    y = (
        mixed(loss.target_networks["mixer"], target_critics, batch["next"], following)
        * GAMMA
        * ~batch["next", "terminated"]
    )
    error = mixed(loss.mixer, critics, batch, formulas.vectors(actors, batch)) - (batch["next", "reward"] + y).detach()
    policy = -mixed(loss.mixer, critics, batch, now).mean()
    torch.testing.assert_close(found["loss_value"], 0.5 * error.square().mean())
    torch.testing.assert_close(found["loss_actor"], policy)
    ours, theirs = gradients(found["loss_actor"], loss), gradients(policy, loss)
    n_actor = sum(1 for actor in actors.values() for _ in actor.parameters())
    for index, (mine, its) in enumerate(zip(ours, theirs, strict=True)):
        torch.testing.assert_close(mine, its if index < n_actor else torch.zeros_like(its))


def test_regularization_is_the_mean_square_of_the_outputs() -> None:
    spec = TEAMS["two"]("categorical")
    loss, actors, _ = make(spec)
    batch = formulas.transitions(actors, spec, SIZE)
    torch.manual_seed(1)
    plain = loss(batch)["loss_actor"]
    loss.action_regularization = 0.3
    torch.manual_seed(1)
    squares = [formulas.policy(a, a.agent_network, batch).square().mean() for a in actors.values()]
    torch.testing.assert_close(loss(batch)["loss_actor"], plain + 0.3 * sum(squares))


def test_hubers_loss_is_linear_beyond_its_delta() -> None:
    spec = TEAMS["one"]("continuous")
    loss, actors, critics = make(spec, value_loss="huber", huber_delta=0.3)
    batch = formulas.transitions(actors, spec, SIZE)
    joint, following = formulas.vectors(actors, batch), formulas.target_actions(loss, actors, batch)
    losses = []
    for i in range(3):
        bootstrap = formulas.value(loss.target_networks["critic_wolves"], "wolves", batch["next"], following, i)
        target = batch["next", "wolves", "reward"][:, i, 0] + GAMMA * bootstrap * ~batch["next", "terminated"][:, 0]
        error = (formulas.value(critics["wolves"], "wolves", batch, joint, i) - target).abs()
        losses.append(torch.where(error < 0.3, error.square() / 2, 0.3 * (error - 0.15)))
    torch.testing.assert_close(loss(batch)["loss_value"], torch.stack(losses).mean())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"other_actions": "none"}, "other_actions='none': expected one of replay, current"),
        ({"value_loss": "l1"}, "value_loss='l1'"),
        ({"adversary": MinimaxAdversary(0.1), "mixer": True}, "give one of them only"),
        ({"team_weight": 0.5, "mixer": True}, "team_weight=0.5, other_actions='replay': with a mixer"),
        ({"other_actions": "current", "mixer": True}, "leave team_weight=0 and other_actions='replay'"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], message: str) -> None:
    spec = TEAMS["one"]("continuous")
    with pytest.raises(UserError) as caught:
        make(spec, **{**options, **({"mixer": VDNMixer(spec)} if "mixer" in options else {})})
    assert message in str(caught.value)


def test_actions_of_another_shape_are_an_error() -> None:
    spec = TEAMS["one"]("continuous")
    loss, actors, _ = make(spec)
    batch = formulas.transitions(actors, spec, SIZE)
    batch["wolves", "action"] = batch["wolves", "action"][:, :1]
    with pytest.raises(UserError, match=r"'action'\): expected float64 .*n_agents=3, D=2\], found float64 \["):
        loss(batch)
    with pytest.raises(UserError, match="expected groups of"):
        MADDPGLoss(actors, {}, gamma=GAMMA)


@pytest.mark.parametrize(
    ("options", "key", "shape", "message"),
    [
        (
            {"action_mask": True},
            ("next", "wolves", "action_mask"),
            (SIZE, 1, 6),
            r"action_mask'\): expected bool \[\d+, n_agents=3, N=6\], found bool",
        ),
        ({"mask": True}, ("next", "wolves", "mask"), (SIZE, 1), r"mask'\): expected bool \[\d+, n_agents=3\]"),
    ],
)
def test_masks_of_another_shape_are_an_error(options: dict[str, bool], key: Any, shape: Any, message: str) -> None:
    spec = TeamSpec((group_spec("wolves", 3, **options),))
    loss, actors, _ = make(spec)
    batch = formulas.transitions(actors, spec, SIZE)
    for part in (batch, batch["next"]):
        part["wolves", "action_mask"] = torch.ones(SIZE, 3, 6, dtype=torch.bool)
        part["wolves", "mask"] = torch.ones(SIZE, 3, dtype=torch.bool)
    assert loss(batch.clone())["loss_value"].isfinite()
    batch[key] = torch.ones(*shape, dtype=torch.bool)
    with pytest.raises(UserError, match=message):
        loss(batch)
