"""MATD3's options of MADDPG's loss against plain loops: twin critics and smoothed targets, dead agents among them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import TensorDictBase
from torch import Tensor

from ctde_kit.errors import UserError
from ctde_kit.modules import MultiAgentDeterministicActor, VDNMixer, action_value_critic, own_observation
from ctde_kit.objectives import MADDPGLoss, TargetPolicySmoothing
from ctde_kit.specs import ActionSpec, TeamSpec
from ctde_kit.testing import check_deterministic_loss
from tests.contracts.fakes import group_spec, make_network
from tests.objectives.maddpg import formulas

GAMMA, SIZE = 0.9, 11
SMOOTHING = TargetPolicySmoothing(deviation=0.4, limit=0.3)

pytestmark = pytest.mark.usefixtures("float64")


def herd(kind: str) -> TeamSpec:
    return TeamSpec((group_spec("wolves", 3, kind, mask=True), group_spec("sheep", 2, kind, observation_dim=8)))


def make(team: TeamSpec, share: Any = False, critic: dict[str, Any] | None = None, **options: Any) -> Any:
    """The loss, actors, critics and twins; the targets are other networks than the online ones."""
    actors = {}
    for group in team:
        network = make_network(False, share)(group.observation_dim, group.action.vector_dim, group.n_agents)
        actors[group.name] = MultiAgentDeterministicActor(group, own_observation(group), network)
    critics, twins = (
        {group.name: action_value_critic(team, group, make_network(False), **(critic or {})) for group in team}
        for _ in range(2)
    )
    loss = MADDPGLoss(actors, critics, gamma=GAMMA, twin_critics=twins, **(formulas.PLAIN | options))
    for parameter in loss.target_networks.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    return loss, actors, critics, twins


def mortal(actors: dict[str, Any], team: TeamSpec) -> TensorDictBase:
    """Transitions in which some wolves are dead, and some die."""
    data = formulas.transitions(actors, team, SIZE)
    alive = torch.rand(SIZE, 3) < 0.7
    data["wolves", "mask"], data["next", "wolves", "mask"] = alive, alive & (torch.rand(SIZE, 3) < 0.8)
    return data


def smoothed(actor: MultiAgentDeterministicActor, action: Tensor) -> Tensor:
    """Agent by agent, number by number."""
    spec, noise = actor.group.action, torch.randn(action.shape)
    result = action.clone()
    for b in range(SIZE):
        for i, (lows, highs) in enumerate(zip(spec.low, spec.high, strict=True)):
            for d, (low, high) in enumerate(zip(lows, highs, strict=True)):
                step = max(-0.3, min(0.3, 0.4 * noise[b, i, d].item())) * (high - low) / 2
                result[b, i, d] = max(low, min(high, action[b, i, d].item() + step))
    return result


def plain_losses(loss: Any, actors: Any, critics: Any, twins: Any, batch: TensorDictBase) -> tuple[Tensor, Tensor]:
    """The actor loss and the critics' loss: means over the living, sums over groups and over both critics."""
    did = formulas.vectors(actors, batch)
    done, ended = batch["next", "done"], batch["next", "terminated"]
    alive, next_alive = batch["wolves", "mask"], batch["next", "wolves", "mask"]
    seen_next = batch["next"].clone()  # time is up for agents of a truncated episode, yet they are bootstrapped
    seen_next["wolves", "mask"] = next_alive | (alive & done & ~ended)
    following = formulas.target_actions(loss, actors, batch.copy().set("next", seen_next))
    following = {name: action.detach() for name, action in following.items()}
    if loss.smoothing is not None:
        following = {name: smoothed(actors[name], action) for name, action in following.items()}
    own_ends = {"wolves": ended | (~next_alive & ~done), "sheep": ended.expand(SIZE, 2)}
    now = {name: formulas.current_actions(actor, batch) for name, actor in actors.items()}
    living = {"wolves": alive, "sheep": torch.ones(SIZE, 2, dtype=torch.bool)}
    policies, values = [], []
    for name in critics:
        n_agents, count = actors[name].group.n_agents, living[name].sum()
        for i in range(n_agents):
            both = [
                formulas.value(loss.target_networks[f"{kind}_{name}"], name, seen_next, following, i)
                for kind in ("critic", "twin_critic")
            ]
            bootstrap = torch.minimum(*both) * ~own_ends[name][:, i]
            y = (batch["next", name, "reward"][:, i, 0] + GAMMA * bootstrap).detach()
            for critic in (critics[name], twins[name]):
                error = formulas.value(critic, name, batch, did, i) - y
                values.append((0.5 * error.square() * living[name][:, i]).sum() / count)
            joint = {group: action.clone() for group, action in did.items()}
            joint[name] = torch.stack([now[name][:, j] if j == i else did[name][:, j] for j in range(n_agents)], 1)
            value = formulas.value(critics[name], name, batch, joint, i)
            policies.append(-(value * living[name][:, i]).sum() / count)
    return torch.stack(policies).sum(), torch.stack(values).sum()


@pytest.mark.parametrize(
    ("kind", "smoothing"), [("continuous", SMOOTHING), ("continuous", None), ("categorical", None)]
)
@pytest.mark.parametrize("critic", [{}, {"sees": "observation"}], ids=["team", "own"])
def test_loss_and_gradients_are_the_papers(kind: str, smoothing: Any, critic: dict[str, Any]) -> None:
    team = herd(kind)
    loss, actors, critics, twins = make(team, critic=critic, smoothing=smoothing)
    batch = mortal(actors, team)
    torch.manual_seed(1)
    found = loss(batch.clone())
    torch.manual_seed(1)
    policy, value = plain_losses(loss, actors, critics, twins, batch)
    torch.testing.assert_close(found["loss_actor"], policy, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found["loss_value"], value, rtol=1e-9, atol=1e-9)
    of_actors = [p for actor in actors.values() for p in actor.parameters()]
    of_critics = [p for part in (critics, twins) for critic in part.values() for p in critic.parameters()]
    total = found["loss_actor"] + found["loss_value"]
    for parameters, expected in ((of_actors, policy), (of_critics, value)):
        ours = torch.autograd.grad(total, parameters, retain_graph=True)
        theirs = torch.autograd.grad(expected, parameters, retain_graph=True)
        for mine, its in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, its, rtol=1e-6, atol=1e-9)


def test_targets_are_of_the_smaller_critic_of_each_agent_and_step() -> None:
    team = herd("continuous")
    loss, actors, _, _ = make(team)
    batch = mortal(actors, team)
    before = loss(batch.clone())["target_value"]
    with torch.no_grad():  # the second target critic is now the larger one everywhere
        for parameter in [*loss.target_networks["twin_critic_wolves"].parameters()][-1:]:
            parameter.add_(1e3)
        for parameter in [*loss.target_networks["twin_critic_sheep"].parameters()][-1:]:
            parameter.add_(1e3)
    of_first = loss(batch.clone())["target_value"]
    single = MADDPGLoss(actors, dict(loss.critics.items()), gamma=GAMMA, **formulas.PLAIN)  # type: ignore[arg-type]
    single.target_networks.load_state_dict(
        {name: value for name, value in loss.target_networks.state_dict().items() if "twin" not in name}
    )
    torch.testing.assert_close(of_first, single(batch.clone())["target_value"])
    assert before < of_first


def test_smoothing_stays_within_the_limit_and_the_bounds() -> None:
    spec = ActionSpec("continuous", (2,), ((-1.0, 0.0),), ((1.0, 10.0),))
    action = torch.tensor([0.0, 9.0]).expand(10_000, 1, 2)
    moved = TargetPolicySmoothing(0.2, 0.5)(spec, action) - action
    assert moved[..., 0].std().item() == pytest.approx(0.2, rel=0.05)
    assert moved[..., 0].abs().max() == 0.5
    assert moved[..., 1].max() == 1.0  # the bound
    assert moved[..., 1].min() == -2.5  # the limit, in halves of the range
    assert torch.equal(TargetPolicySmoothing(0.0)(spec, action), action)


@pytest.mark.parametrize("kind", ["continuous", "categorical"])
def test_the_doctor_finds_nothing(kind: str) -> None:
    torch.set_default_dtype(torch.float32)
    team = herd(kind)
    loss, actors, _, _ = make(team, smoothing=SMOOTHING if kind == "continuous" else None)
    batch = mortal(actors, team)
    for group in ("wolves", "sheep"):
        report = check_deterministic_loss(loss, batch, group=group, other_actions="replay")
        verdicts = {finding.rule: finding.verdict for finding in report.findings}
        assert verdicts["both_targets_are_used"] == verdicts["gradients_stay_home"] == "passed"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"smoothing": SMOOTHING}, "smoothing: the actions of group 'wolves' are discrete"),
        ({"mixer": VDNMixer}, "twin_critics: with a mixer"),
        ({"twin_critics": {}}, r"twin_critics are of groups \[\]: expected those of critics, \['sheep', 'wolves'\]"),
        ({"twin_critics": []}, "twin_critics is a list: expected a mapping"),
        ({"twin_critics": "same"}, "twin_critics share parameters with critics"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], message: str) -> None:
    team = herd("categorical")
    _, actors, critics, twins = make(team)
    parts = {"twin_critics": twins, **options}
    parts = {name: critics if part == "same" else part for name, part in parts.items()}
    parts = {name: part(team) if part is VDNMixer else part for name, part in parts.items()}
    with pytest.raises(UserError, match=message):
        MADDPGLoss(actors, critics, gamma=GAMMA, **parts)
    for numbers in ({"deviation": -1.0}, {"limit": -1.0}):
        with pytest.raises(UserError, match=r"=-1\.0: expected 0 or more"):
            TargetPolicySmoothing(**numbers)
