"""MASAC's loss against plain loops with the papers' formulas, for all kinds of action, dead agents among them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from ctde_kit.errors import UserError
from ctde_kit.modules import MultiAgentDeterministicActor, TanhNormal, action_value_critic, own_observation
from ctde_kit.objectives import MASACLoss
from ctde_kit.specs import TeamSpec
from tests.contracts.fakes import group_spec, make_actor, make_network
from tests.objectives.maddpg import formulas
from tests.objectives.maddpg.test_opponents import Scripted

GAMMA, SIZE = 0.9, 11

pytestmark = pytest.mark.usefixtures("float64")


def herd(kind: str) -> TeamSpec:
    """Wolves that die and may not do everything, and sheep of which neither is so."""
    masks = {"mask": True, "action_mask": kind != "continuous"}
    return TeamSpec((group_spec("wolves", 3, kind, **masks), group_spec("sheep", 2, kind, observation_dim=8)))


def make(
    team: TeamSpec, critic: dict[str, Any] | None = None, twins: bool = True, latent_dim: int = 0, **options: Any
) -> Any:
    """The loss, actors, critics and twins; targets are other networks, and temperatures are all different."""
    actors = {group.name: make_actor(group, share=False, latent_dim=latent_dim) for group in team}
    pairs = [
        {group.name: action_value_critic(team, group, make_network(False), **(critic or {})) for group in team}
        for _ in range(2)
    ]
    loss = MASACLoss(actors, pairs[0], pairs[1] if twins else None, gamma=GAMMA, **options)
    for parameter in loss.target_networks.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    with torch.no_grad():
        for temperature in loss.temperatures.values():
            temperature.log_alpha.copy_(torch.randn_like(temperature.log_alpha))
    return loss, actors, *pairs


def transitions(team: TeamSpec) -> TensorDictBase:
    """Random transitions: some terminate, some wolves are dead, some die, and some may do nothing."""
    data = TensorDict({"next": TensorDict({}, [SIZE])}, [SIZE])
    for group in team:
        shape, spec = (SIZE, group.n_agents), group.action
        for part in (data, data["next"]):
            part[group.name, "observation"] = torch.randn(*shape, group.observation_dim)
            if group.action_mask:
                part[group.name, "action_mask"] = torch.rand(*shape, spec.vector_dim) < 0.5
        index = torch.stack([torch.randint(size, shape) for size in spec.sizes], -1)
        if spec.kind == "continuous":
            low, high = torch.tensor(spec.low), torch.tensor(spec.high)
            data[group.name, "action"] = low + (high - low) * torch.rand(*shape, 2)
        elif spec.kind == "one_hot":
            data[group.name, "action"] = torch.nn.functional.one_hot(index[..., 0], spec.sizes[0])
        else:
            data[group.name, "action"] = index if spec.kind == "multi_discrete" else index[..., 0]
        data["next", group.name, "reward"] = torch.randn(*shape, 1)
    data["next", "terminated"] = torch.rand(SIZE, 1) < 0.3
    data["next", "done"] = data["next", "terminated"] | (torch.rand(SIZE, 1) < 0.3)
    alive = torch.rand(SIZE, 3) < 0.7
    data["wolves", "mask"], data["next", "wolves", "mask"] = alive, alive & (torch.rand(SIZE, 3) < 0.8)
    return data


@dataclass
class Own:
    """Each agent's candidate actions: vectors ``[SIZE, n, D]``, log-probabilities and probabilities ``[SIZE, n]``."""

    candidates: list[tuple[Tensor, Tensor, Tensor]]
    sample: Tensor


def own(actor: Any, observations: TensorDictBase, draws: bool) -> Own:
    """What each agent's policy may do, drawn in the order of the loss."""
    group, network = actor.group, actor.agent_network
    spec, output = group.action, network(observations.select(*network.in_keys))
    if spec.kind == "continuous":
        loc, scale = output[group.name, "loc"], output[group.name, "scale"]
        x = loc + scale * torch.normal(torch.zeros_like(loc), torch.ones_like(loc))
        normal = -0.5 * ((x - loc) / scale) ** 2 - scale.log() - 0.5 * math.log(2 * math.pi)
        log_prob = (normal - (1 - x.tanh() ** 2).log()).sum(-1)  # equation 21, in halves of the range
        low, high = torch.tensor(spec.low), torch.tensor(spec.high)
        action = (low + high) / 2 + (high - low) / 2 * x.tanh()
        return Own([(action, log_prob, torch.ones_like(log_prob))], action)
    logits = output[group.name, "logits"]
    if group.action_mask:
        allowed = observations[group.name, "action_mask"].clone()
        for part in allowed.split(spec.sizes, -1):
            part[..., 0] |= ~part.any(-1)  # who may do nothing does nothing
        logits = logits.masked_fill(~allowed, -torch.inf)
    parts = [part.softmax(-1) for part in logits.split(spec.sizes, -1)]
    sample = torch.zeros(0)
    if draws:
        drawn = [
            torch.multinomial(part.reshape(-1, part.shape[-1]), 1, True).reshape(part.shape[:-1]) for part in parts
        ]
        hot = [torch.nn.functional.one_hot(i, n) for i, n in zip(drawn, spec.sizes, strict=True)]
        sample = torch.cat(hot, -1).to(logits.dtype)
    candidates = []
    for choice in itertools.product(*map(range, spec.sizes)):
        probability = torch.stack([part[..., k] for part, k in zip(parts, choice, strict=True)]).prod(0)
        log_prob = torch.where(probability > 0, probability.clamp(min=1e-300).log(), 0)
        hot = [torch.eye(n)[k] for n, k in zip(spec.sizes, choice, strict=True)]
        candidates.append((torch.cat(hot).expand_as(logits), log_prob, probability))
    return Own(candidates, sample)


def target_entropy(group: Any, batch: TensorDictBase) -> Tensor:
    """Minus the dimensions, or 0.98 of the largest entropy among what is allowed, ``[SIZE, n]``."""
    spec, shape = group.action, (SIZE, group.n_agents)
    if spec.kind == "continuous":
        return torch.full(shape, -2.0)
    if not group.action_mask:
        return torch.full(shape, 0.98 * math.log(math.prod(spec.sizes)))
    result = torch.zeros(shape)
    for b, i in itertools.product(*map(range, shape)):
        allowed = batch[group.name, "action_mask"][b, i].split(spec.sizes)
        result[b, i] = 0.98 * math.log(math.prod(max(1, int(part.sum())) for part in allowed))
    return result


Bonus = Callable[[Mapping[str, Own], TensorDictBase, Mapping[str, Tensor]], Mapping[str, list[Tensor]]]


def no_bonus(
    policies: Mapping[str, Own], seen: TensorDictBase, living: Mapping[str, Tensor]
) -> dict[str, list[Tensor]]:
    """What is added to the value of each candidate of each group: nothing."""
    return {name: [torch.zeros(SIZE, 3)] * len(policy.candidates) for name, policy in policies.items()}


def plain_losses(
    loss: Any, actors: Any, critics: Any, twins: Any, batch: TensorDictBase, bonus: Bonus = no_bonus
) -> tuple[Tensor, ...]:
    """The losses of actors, critics and temperatures: means over the living, sums over groups and both critics.

    ``bonus`` gives what is added to the values of candidates, from policies, observations and who is alive.
    """
    pairs = [(critics, "critic")] + ([(twins, "twin_critic")] if loss.twin_critics is not None else [])
    current = loss.other_actions == "current"
    did = {name: actor.group.action.vector(batch[name, "action"]) for name, actor in actors.items()}
    done, ended = batch["next", "done"], batch["next", "terminated"]
    alive, next_alive = batch["wolves", "mask"], batch["next", "wolves", "mask"]
    seen_next = batch["next"].clone()  # time is up for agents of a truncated episode, yet they are bootstrapped
    seen_next["wolves", "mask"] = next_alive | (alive & done & ~ended)
    ends = {"wolves": ended | (~next_alive & ~done), "sheep": ended.expand(SIZE, 2)}
    living = {"wolves": alive, "sheep": torch.ones(SIZE, 2, dtype=torch.bool)}
    bootstrapped = {**living, "wolves": seen_next["wolves", "mask"]}
    with torch.no_grad():
        if "latent" in batch.keys():  # noqa: SIM118
            seen_next["latent"] = torch.randn_like(batch["latent"])
        following = {name: own(actor, seen_next, True) for name, actor in actors.items()}
        next_bonus = bonus(following, seen_next, bootstrapped)
    now = {name: own(actor, batch, current or bonus is not no_bonus) for name, actor in actors.items()}
    now_bonus = bonus(now, batch, living)
    next_joint = {name: part.sample for name, part in following.items()}
    others = {name: part.sample.detach() for name, part in now.items()} if current else did

    def q(networks: Any, name: str, seen: Any, joint: dict[str, Tensor], i: int, action: Tensor) -> Tensor:
        changed = {group: vector.clone() for group, vector in joint.items()}
        changed[name] = torch.stack(
            [action[:, j] if j == i else joint[name][:, j] for j in range(joint[name].shape[1])], 1
        )
        return torch.stack([formulas.value(network, name, seen, changed, i) for network in networks]).amin(0)

    policies, values, temperatures = [], [], []
    for name, actor in actors.items():
        group, count = actor.group, living[name].sum()
        log_alphas = loss.temperatures[name].log_alpha.expand(group.n_agents, 1)
        targets = target_entropy(group, batch)
        for i in range(group.n_agents):
            log_alpha, weight = log_alphas[i, 0], living[name][:, i] / count
            alpha = log_alpha.exp().detach()
            of_target = [loss.target_networks[f"{kind}_{name}"] for _, kind in pairs]
            soft = [
                p[:, i] * (q(of_target, name, seen_next, next_joint, i, action) - alpha * log_prob[:, i] + extra[:, i])
                for (action, log_prob, p), extra in zip(following[name].candidates, next_bonus[name], strict=True)
            ]
            y = batch["next", name, "reward"][:, i, 0] + GAMMA * ~ends[name][:, i] * torch.stack(soft).sum(0)
            for networks, _ in pairs:
                error = formulas.value(networks[name], name, batch, did, i) - y.detach()
                values.append((0.5 * error.square() * weight).sum())
            online = [networks[name] for networks, _ in pairs]
            gains = [
                p[:, i] * (alpha * log_prob[:, i] - q(online, name, batch, others, i, action) - extra[:, i])
                for (action, log_prob, p), extra in zip(now[name].candidates, now_bonus[name], strict=True)
            ]
            policies.append((torch.stack(gains).sum(0) * weight).sum())
            expected = torch.stack([p[:, i] * log_prob[:, i] for _, log_prob, p in now[name].candidates]).sum(0)
            temperatures.append((-log_alpha * (expected + targets[:, i]).detach() * weight).sum())
    return tuple(torch.stack(parts).sum() for parts in (policies, values, temperatures))


@pytest.mark.parametrize("other_actions", ["replay", "current"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("continuous", {"share_alpha": False}),
        ("continuous", {"twins": False}),
        ("continuous", {"critic": {"sees": "observation"}}),
        ("categorical", {"share_alpha": False}),
        ("categorical", {"critic": {"heads": "network", "own_first": True}}),
        ("one_hot", {}),
        ("multi_discrete", {}),
    ],
)
def test_losses_and_gradients_are_the_papers(kind: str, options: dict[str, Any], other_actions: Any) -> None:
    team = herd(kind)
    loss, actors, critics, twins = make(team, other_actions=other_actions, **options)
    batch = transitions(team)
    torch.manual_seed(1)
    found = loss(batch.clone())
    torch.manual_seed(1)
    expected = plain_losses(loss, actors, critics, twins, batch)
    names = ("loss_actor", "loss_qvalue", "loss_alpha")
    learned = (
        [p for actor in actors.values() for p in actor.parameters()],
        [p for part in (loss.critics, loss.twin_critics or torch.nn.ModuleDict()) for p in part.parameters()],
        [*loss.temperatures.parameters()],
    )
    total = torch.stack([found[name] for name in names]).sum()
    for name, value, parameters in zip(names, expected, learned, strict=True):
        torch.testing.assert_close(found[name], value, rtol=1e-8, atol=1e-8, msg=lambda m, n=name: f"{n}: {m}")
        # Each loss moves its own parameters alone.
        ours = torch.autograd.grad(total, parameters, retain_graph=True)
        theirs = torch.autograd.grad(value, parameters, retain_graph=True)
        for mine, its in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, its, rtol=1e-6, atol=1e-8, msg=lambda m, n=name: f"{n}: {m}")
    assert set(found.keys()) == set(loss.out_keys)


@pytest.mark.parametrize("kind", ["continuous", "categorical"])
def test_the_dead_change_nothing(kind: str) -> None:
    team = herd(kind)
    loss, _, _, _ = make(team)
    batch = transitions(team)
    torch.manual_seed(1)
    before = loss(batch.clone())
    dead = ~batch["wolves", "mask"] & ~batch["next", "wolves", "mask"]
    changed = batch.clone()
    changed["wolves", "observation"][dead] = 1e3
    changed["next", "wolves", "observation"][dead] = -1e3
    changed["next", "wolves", "reward"][dead] = 1e6
    changed["wolves", "action"][dead] = 7
    if kind != "continuous":
        for part in (changed, changed["next"]):
            part["wolves", "action_mask"][dead] = ~part["wolves", "action_mask"][dead]
    torch.manual_seed(1)
    for name, value in loss(changed).items():
        torch.testing.assert_close(value, before[name], msg=lambda m, n=name: f"{n}: {m}")


def test_a_choice_that_is_not_allowed_has_no_gradient_and_no_value() -> None:
    team = herd("categorical")
    loss, actors, _, _ = make(team)
    batch = transitions(team)
    batch["wolves", "mask"].fill_(True)
    batch["wolves", "action_mask"] = torch.zeros(SIZE, 3, 6, dtype=torch.bool)
    batch["wolves", "action_mask"][..., 2] = True
    found = loss(batch)
    own_network = actors["wolves"].parameters()
    gradients = torch.autograd.grad(found["loss_actor"], [*own_network])
    assert all(gradient.eq(0).all() for gradient in gradients)  # one choice is no choice
    assert found["wolves/entropy"] == 0


def test_first_layers_read_the_batch_once_for_all_choices() -> None:
    team = herd("categorical")
    loss, _, critics, _ = make(team)
    rows: list[int] = []
    for critic in (critics["wolves"], loss.target_networks["critic_wolves"]):
        critic.agent_network.network.first.register_forward_hook(lambda _, x, __: rows.append(x[0][..., 0].numel()))
    loss(transitions(team))
    assert rows == [SIZE] * 3  # the value, and of all six choices the next values and those that are climbed


def test_a_fixed_temperature_is_no_loss() -> None:
    team = herd("continuous")
    loss, _, _, _ = make(team, fixed_alpha=True)
    found = loss(transitions(team))
    assert "loss_alpha" not in found
    assert set(found.keys()) == set(loss.out_keys)
    assert not any("alpha" in name for name, p in loss.named_parameters() if p.requires_grad)


@pytest.mark.parametrize(("entropy", "rises"), [(-9.0, False), (9.0, True)])
def test_the_temperature_rises_where_entropy_is_below_its_target(entropy: float, rises: bool) -> None:
    team = herd("continuous")
    loss, _, _, _ = make(team, target_entropy=entropy)
    loss(transitions(team))["loss_alpha"].backward()
    assert all((temperature.log_alpha.grad < 0).all() == rises for temperature in loss.temperatures.values())


class Stubborn(Scripted):
    """Chooses one action, whatever it sees."""

    choice = 0

    def does(self, observation: Tensor) -> Tensor:
        return torch.full(observation.shape[:-1], self.choice)


def test_opponents_act_in_targets() -> None:
    team = herd("categorical")
    wolves, sheep = make_actor(team["wolves"]), Stubborn(team["sheep"])
    critics, twins = ({"wolves": action_value_critic(team, team["wolves"], make_network(False))} for _ in range(2))
    loss = MASACLoss({"wolves": wolves, "sheep": sheep}, critics, twins, gamma=GAMMA)
    batch = transitions(team)
    assert set(loss(batch.clone()).keys()) == set(loss.out_keys)

    def target_value(choice: int) -> float:
        sheep.choice = choice
        torch.manual_seed(1)  # of what the wolves do
        return loss(batch.clone())["target_value"].item()

    before = target_value(0)
    assert target_value(3) != before
    # What they did before is in no target.
    batch["sheep", "action"] = (batch["sheep", "action"] + 1) % 6
    assert target_value(0) == before


def test_a_sample_is_scored_by_its_unsquashed_value() -> None:
    dist = TanhNormal(torch.tensor([[0.3, -0.2]]), torch.tensor([[0.5, 0.8]]), torch.tensor([-1.0, 0.0]), 4.0)
    x = dist.rsample_unsquashed()
    torch.testing.assert_close(dist.log_prob_of_unsquashed(x), dist.log_prob(dist.squash(x)))
    far = TanhNormal(torch.full((1,), 30.0), torch.ones(1))  # where tanh is rounded to 1
    assert far.log_prob_of_unsquashed(far.rsample_unsquashed()).item() > 50
    assert far.log_prob(far.rsample()).item() < 50


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"other_actions": "none"}, "MASACLoss: other_actions='none': expected one of replay, current"),
        ({"value_loss": "l1"}, "MASACLoss: value_loss='l1'"),
        ({"alpha_init": 0.0}, "MASACLoss: alpha_init=0.0: expected a number above 0"),
        ({"twin_critics": {}}, "MASACLoss: twin_critics are of groups []"),
        (
            {"actors": "deterministic"},
            "actors['wolves'] is a MultiAgentDeterministicActor: expected a MultiAgentActor",
        ),
        ({"critics": {}}, "critics: expected groups of ['sheep', 'wolves'], found none"),
        ({"critics": []}, "MASACLoss: critics is a list"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], message: str) -> None:
    team = herd("continuous")
    _, actors, critics, twins = make(team)
    if options.get("actors") == "deterministic":
        group = team["wolves"]
        network = make_network(False)(group.observation_dim, group.action.vector_dim, 3)
        wolves = MultiAgentDeterministicActor(group, own_observation(group), network)
        options = {"actors": {**actors, "wolves": wolves}}
    with pytest.raises(UserError) as caught:
        MASACLoss(**{"actors": actors, "critics": critics, "twin_critics": twins, "gamma": GAMMA, **options})
    assert message in str(caught.value)
