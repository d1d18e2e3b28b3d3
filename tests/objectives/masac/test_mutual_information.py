"""The bound of mutual information in MASAC's loss against a plain loop over pairs of agents, and against the truth."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn

from ctde_kit.errors import UserError
from ctde_kit.modules import ActionPredictors
from ctde_kit.objectives import MASACLoss, MutualInformation
from ctde_kit.objectives.masac.group_policy import current_policies
from ctde_kit.specs import TeamSpec
from ctde_kit.testing import check_soft_actor_critic_loss
from tests.contracts.fakes import group_spec, make_actor, make_network
from tests.objectives.masac.test_masac_loss import GAMMA, SIZE, Own, herd, make, plain_losses, transitions

LATENT, OTHERS, WEIGHT = 4, 2, 0.7

pytestmark = pytest.mark.usefixtures("float64")


def information(team: TeamSpec, **options: Any) -> MutualInformation:
    """With small networks, a set of weights for each pair of agents."""
    found = MutualInformation(
        ActionPredictors(team, make_network(False, False)), **{"weight": WEIGHT, "latent_samples": OTHERS, **options}
    )
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.mul_(2)
    return found


def batch_of(team: TeamSpec) -> TensorDictBase:
    return transitions(team).set("latent", torch.randn(SIZE, LATENT))


def log_density(group: Any, output: Tensor, i: int, vector: Tensor, allowed: Tensor | None, floor: float) -> Tensor:
    """Of agent i's actions ``[SIZE, D]``, from its network's outputs ``[SIZE, P]``, by hand."""
    spec = group.action
    if spec.kind == "continuous":
        low, high = torch.tensor(spec.low[i]), torch.tensor(spec.high[i])
        loc, raw = output.chunk(2, -1)
        # TensorDict's biased softplus: the deviation is 1 where the network gives 0.
        scale = (nn.functional.softplus(raw + math.log(math.exp(0.99) - 1)) + 0.01).clamp(min=floor)
        x = ((vector - (low + high) / 2) / ((high - low) / 2)).atanh()
        normal = -0.5 * ((x - loc) / scale) ** 2 - scale.log() - 0.5 * math.log(2 * math.pi)
        return (normal - (1 - x.tanh() ** 2).log() - ((high - low) / 2).log()).sum(-1)
    total = torch.zeros(len(vector))
    masks = [torch.ones(len(vector), n, dtype=torch.bool) for n in spec.sizes]
    if allowed is not None:
        masks = [part.clone() for part in allowed.split(spec.sizes, -1)]
    for part, hot, mask in zip(output.split(spec.sizes, -1), vector.split(spec.sizes, -1), masks, strict=True):
        mask[:, 0] |= ~mask.any(-1)
        total = total + (part.masked_fill(~mask, -1e30).log_softmax(-1) * hot).sum(-1)
    return total


class Plain:
    """The paper's terms, one ordered pair of agents after the other."""

    def __init__(self, loss: Any, actors: Mapping[str, Any]):
        self.information, self.actors, self.likelihood = loss.mutual_information, actors, torch.zeros(())

    def allowed(self, name: str, seen: TensorDictBase, i: int) -> Tensor | None:
        return seen[name, "action_mask"][:, i] if self.actors[name].group.action_mask else None

    def observed(self, name: str, seen: TensorDictBase, i: int) -> Tensor:
        value = seen[name, "observation"][:, i]
        return value * seen[name, "mask"][:, i, None] if self.actors[name].group.mask else value

    def q(self, seen: TensorDictBase, given: Any, action: Tensor, predicted: Any, vector: Tensor) -> Tensor:
        """log q of agent ``predicted``'s ``vector``, given agent ``given``'s ``action``; agents are (group, index)."""
        (h, j), (g, i) = given, predicted
        spec = self.actors[h].group.action
        if spec.kind == "continuous":
            low, high = torch.tensor(spec.low[j]), torch.tensor(spec.high[j])
            action = (action - (low + high) / 2) / ((high - low) / 2)
        network = self.information.predictors.networks[f"{h}_predicts_{g}"]
        n_pairs = self.actors[h].group.n_agents * self.actors[g].group.n_agents
        features = torch.cat([self.observed(h, seen, j), action, self.observed(g, seen, i)], -1)
        pair = j * self.actors[g].group.n_agents + i
        output = network(features.unsqueeze(1).expand(-1, n_pairs, -1))[:, pair]
        group, allowed = self.actors[g].group, self.allowed(g, seen, i)
        log_q = log_density(group, output, i, vector, allowed, 0.05)
        if group.action.kind == "continuous":
            return log_q
        choices = torch.ones(SIZE)
        for part in (torch.ones(SIZE, sum(group.action.sizes)) if allowed is None else allowed).split(
            list(group.action.sizes), -1
        ):
            choices = choices * part.sum(-1).clamp(min=1)
        return (0.98 * log_q.exp() + 0.02 / choices).log()

    def marginal(self, name: str, outputs: list[Tensor], seen: TensorDictBase, i: int, vector: Tensor) -> Tensor:
        """The logarithm of the mean probability under all latents."""
        each = [
            log_density(self.actors[name].group, output[:, i], i, vector, self.allowed(name, seen, i), 1e-3).exp()
            for output in outputs
        ]
        return (sum(each) / len(each)).clamp(min=1e-300).log()  # type: ignore[union-attr]

    def __call__(
        self, policies: Mapping[str, Own], seen: TensorDictBase, living: Mapping[str, Tensor]
    ) -> dict[str, list[Tensor]]:
        outputs: dict[str, list[Tensor]] = {}
        for name, actor in self.actors.items():
            network = actor.agent_network
            latents = [seen["latent"], *torch.randn(OTHERS, SIZE, LATENT)]
            outputs[name] = [network.network(network.inputs(seen.copy().set("latent", z))) for z in latents]
        agents = [(name, i) for name, actor in self.actors.items() for i in range(actor.group.n_agents)]
        sample = {name: policy.sample.detach() for name, policy in policies.items()}
        counts, total = [], []
        for (h, j), (g, i) in itertools.permutations(agents, 2):
            pair = living[h][:, j] & living[g][:, i]
            counts.append(pair.sum())
            total.append((self.q(seen, (h, j), sample[h][:, j], (g, i), sample[g][:, i]) * pair).sum())
        self.likelihood = -torch.stack(total).sum() / torch.stack(counts).sum()
        found = {}
        for name, policy in policies.items():
            found[name] = [
                self.bonus_of(name, outputs, seen, living, sample, candidate, agents) for candidate in policy.candidates
            ]
        return found

    def bonus_of(
        self, g: str, outputs: Any, seen: Any, living: Any, sample: Any, candidate: Any, agents: Any
    ) -> Tensor:
        """The weighted sum of all bounds of each agent that takes its candidate, ``[SIZE, n]``."""
        action, _, probability = candidate
        columns = []
        for i in range(self.actors[g].group.n_agents):
            column = torch.zeros(SIZE)
            for h, j in agents:
                if (h, j) == (g, i):
                    continue
                mine, theirs = action[:, i], sample[h][:, j]
                bound = -self.marginal(g, outputs[g], seen, i, mine)
                bound = bound + self.q(seen, (h, j), theirs, (g, i), mine)
                bound = bound - self.marginal(h, outputs[h], seen, j, theirs).detach()
                bound = bound + self.q(seen, (g, i), mine, (h, j), theirs)
                pair = living[h][:, j] & living[g][:, i] & (probability[:, i] > 0)
                column = column + 0.5 * torch.where(pair, bound, 0)
            columns.append(WEIGHT * column)
        return torch.stack(columns, 1)


@pytest.mark.parametrize(
    ("kind", "other_actions"),
    [
        ("continuous", "replay"),
        ("continuous", "current"),
        ("categorical", "replay"),
        ("one_hot", "current"),
        pytest.param("multi_discrete", "replay", marks=pytest.mark.slow),
    ],
)
def test_losses_and_gradients_are_those_of_a_plain_loop(kind: str, other_actions: Any) -> None:
    team = herd(kind)
    loss, actors, critics, twins = make(
        team, other_actions=other_actions, latent_dim=LATENT, mutual_information=information(team)
    )
    batch = batch_of(team)
    torch.manual_seed(1)
    found = loss(batch.clone())
    torch.manual_seed(1)
    plain = Plain(loss, actors)
    expected = [*plain_losses(loss, actors, critics, twins, batch, plain), plain.likelihood]
    names = ("loss_actor", "loss_qvalue", "loss_alpha", "loss_prediction")
    learned = (
        [p for actor in actors.values() for p in actor.parameters()],
        [p for part in (loss.critics, loss.twin_critics) for p in part.parameters()],
        [*loss.temperatures.parameters()],
        [*loss.mutual_information.parameters()],
    )
    total = torch.stack([found[name] for name in names]).sum()
    for name, value, parameters in zip(names, expected, learned, strict=True):
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-8, msg=lambda m, n=name: f"{n}: {m}")
        # Each loss moves its own parameters alone.
        ours = torch.autograd.grad(total, parameters, retain_graph=True)
        theirs = torch.autograd.grad(value, parameters, retain_graph=True)
        for mine, its in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, its, rtol=1e-6, atol=1e-8, msg=lambda m, n=name: f"{n}: {m}")
    assert set(found.keys()) == set(loss.out_keys)


@pytest.mark.parametrize("kind", ["continuous", "categorical"])
def test_the_dead_change_nothing(kind: str) -> None:
    team = herd(kind)
    loss, _, _, _ = make(team, latent_dim=LATENT, mutual_information=information(team))
    batch = batch_of(team)
    torch.manual_seed(1)
    before = loss(batch.clone())
    dead = ~batch["wolves", "mask"] & ~batch["next", "wolves", "mask"]
    changed = batch.clone()
    changed["wolves", "observation"][dead] = 1e3
    changed["next", "wolves", "observation"][dead] = -1e3
    torch.manual_seed(1)
    for name, value in loss(changed).items():
        torch.testing.assert_close(value, before[name], msg=lambda m, n=name: f"{n}: {m}")
    batch["wolves", "mask"].fill_(False)
    batch["next", "wolves", "mask"].fill_(False)
    batch["sheep", "observation"].fill_(0)
    assert loss(batch)["wolves/mutual_information"] == 0  # there is no agent left to tell of


def test_two_forbidden_choices_at_once_leave_gradients_finite() -> None:
    team = herd("multi_discrete")
    loss, _, _, _ = make(team, latent_dim=LATENT, mutual_information=information(team))
    found = loss(batch_of(team))
    total = torch.stack([value for name, value in found.items() if name.startswith("loss_")]).sum()
    gradients = torch.autograd.grad(total, [p for p in loss.parameters() if p.requires_grad])
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["continuous", "categorical"])
def test_the_doctor_finds_nothing(kind: str) -> None:
    team = herd(kind)
    loss, _, _, _ = make(team, latent_dim=LATENT, mutual_information=information(team))
    check_soft_actor_critic_loss(loss, batch_of(team), group="wolves", other_actions="replay")


def test_weight_zero_is_masac_with_a_latent_that_is_measured() -> None:
    team = herd("categorical")
    measured, actors, critics, twins = make(team, latent_dim=LATENT, mutual_information=information(team, weight=0.0))
    plain = MASACLoss(actors, critics, twins, gamma=GAMMA)
    plain.target_networks.load_state_dict(measured.target_networks.state_dict())
    plain.temperatures.load_state_dict(measured.temperatures.state_dict())
    batch = batch_of(team)
    for group in team:
        batch[group.name, "action_mask"] = torch.ones(SIZE, group.n_agents, 6, dtype=torch.bool)
    torch.manual_seed(1)
    found = measured(batch.clone())
    torch.manual_seed(1)
    expected = plain(batch.clone())
    # Numbers that are drawn for the bound come after those of the targets.
    assert torch.equal(found["loss_qvalue"], expected["loss_qvalue"])
    assert set(found.keys()) - set(expected.keys()) == {
        "loss_prediction",
        "mutual_information",
        "wolves/mutual_information",
        "sheep/mutual_information",
    }


class Tables(nn.Module):
    """Predictors that know the joint distribution of two agents' choices, ``[n_first, n_second]``."""

    def __init__(self, joint: Tensor):
        super().__init__()
        self.joint = joint

    def forward(self, tensordict: TensorDictBase, given: str, predicted: str, action: Tensor) -> Tensor:
        rows = torch.stack([self.joint, self.joint.T])  # of the other agent's choice, given each agent's own
        logits = torch.einsum("...jc,jcp->...jp", action, rows).clamp(min=1e-300).log()
        return logits.unsqueeze(-2).expand(*logits.shape[:-1], 2, logits.shape[-1])


def game(weights: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """The policies ``[n_points, 2, N]`` under each latent of one dimension, and their exact joint distribution."""
    policies = (points[:, None, None] * weights).softmax(-1)
    return policies, torch.einsum("zi,zj->ij", policies[:, 0], policies[:, 1]) / len(points)


def exact_information(joint: Tensor) -> Tensor:
    independent = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    return (joint * (joint / independent).log()).sum()


@pytest.mark.parametrize("others", [0, 1, 8, 512])
def test_the_bound_is_below_the_exact_information_and_reaches_it_where_predictors_are_exact(others: int) -> None:
    torch.manual_seed(0)
    team = TeamSpec((group_spec("agents", 2, "categorical", observation_dim=5),))
    n, weights = 8_000 if others < 100 else 1_000, 2.5 * torch.randn(2, 6)
    points = torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(4_000) + 0.5) / 4_000)  # of equal probability
    joint = game(weights, points)[1]
    truth = exact_information(joint)
    actor = make_actor(team["agents"], latent_dim=1)
    # What the network gives for an observation of zeros is weights times the latent.
    network = actor.agent_network
    network.network = Linear(weights)
    for predictors, is_exact in ((Tables(joint), True), (Tables(joint + 0.05), False)):
        bound = MutualInformation(predictors, weight=1.0, latent_samples=others)
        data = TensorDict({"agents": {"observation": torch.zeros(n, 1, 2, 5)}, "latent": torch.randn(n, 1, 1)}, [n, 1])
        policies = current_policies({"agents": actor}, data, {"agents": network(data.copy())}, draws=True)
        acting = bound.acting(
            policies, {"agents": data.select(*network.in_keys)}, {"agents": torch.ones(n, 1, 2, 1).bool()}
        )
        each = policies["agents"].own.mean(bound(data, acting)["agents"])
        error = each.mean((1, 2)).std() / n**0.5
        found = each.mean()
        assert found < truth + 4 * error
        if is_exact and others == 512:
            # log(1 + 512) is far above; the share of a uniform choice costs at most -log(0.98) in each direction.
            assert found > truth - 4 * error - 0.02 + math.log(0.98)
        elif not is_exact or others == 0:
            assert found < truth - 0.03
        if others == 0:
            assert found < 4 * error  # the entropy given the latent is no more than that given the other's action


class Linear(nn.Module):
    """Each agent's logits: the latent, the last feature, times the agent's weights ``[n_agents, N]``."""

    recurrent = False

    def __init__(self, weights: Tensor):
        super().__init__()
        self.weights = weights

    def forward(self, x: Tensor) -> Tensor:
        return x[..., -1:] * self.weights


def test_the_bound_of_gaussian_actions_is_that_of_their_correlation() -> None:
    torch.manual_seed(0)
    n, deviation = 2_000, 0.5
    group = group_spec("agents", 2, "continuous")
    actor = make_actor(group, latent_dim=1)
    network = actor.agent_network
    network.network = Gaussian(deviation)
    rho = 1 / (
        1 + deviation**2
    )  # of x_1 = z + noise and x_2 = z + noise, before squashing; the second dimension is noise
    exact = -0.5 * math.log(1 - rho**2)
    bound = MutualInformation(Conditional(group, rho, deviation), weight=1.0, latent_samples=300)
    data = TensorDict({"agents": {"observation": torch.zeros(n, 1, 2, 5)}, "latent": torch.randn(n, 1, 1)}, [n, 1])
    policies = current_policies({"agents": actor}, data, {"agents": network(data.copy())}, draws=True)
    acting = bound.acting(
        policies, {"agents": data.select(*network.in_keys)}, {"agents": torch.ones(n, 1, 2, 1).bool()}
    )
    each = bound(data, acting)["agents"][0]
    error = each.mean((1, 2)).std().item() / n**0.5
    assert each.mean().item() == pytest.approx(exact, abs=4 * error + 0.01)


@pytest.mark.parametrize("location", [3.0, 9.0, 30.0])
def test_actions_that_saturate_tell_nothing_of_each_other_and_are_not_driven_further(location: float) -> None:
    group, deviation = group_spec("agents", 2, "continuous"), 0.5
    actor = make_actor(group, latent_dim=1)
    network = actor.agent_network
    network.network = Constant(location, deviation)
    bound = MutualInformation(Exactly(network.network), weight=1.0)
    data = TensorDict({"agents": {"observation": torch.zeros(20, 1, 2, 5)}, "latent": torch.randn(20, 1, 1)}, [20, 1])
    policies = current_policies({"agents": actor}, data, {"agents": network(data.copy())}, draws=True)
    acting = bound.acting(
        policies, {"agents": data.select(*network.in_keys)}, {"agents": torch.ones(20, 1, 2, 1).bool()}
    )
    found = bound(data, acting)["agents"]
    torch.testing.assert_close(found, torch.zeros_like(found), rtol=0, atol=1e-9)
    (gradient,) = torch.autograd.grad(found.sum(), network.network.location)
    # What is left is the noise of the estimate: without the unsquashed values, 7 per action at 9.
    assert gradient.abs() / 40 < 3 / deviation


class Constant(nn.Module):
    """One location before squashing and one deviation, whatever the latent."""

    recurrent = False

    def __init__(self, location: float, deviation: float):
        super().__init__()
        self.location = nn.Parameter(torch.tensor(location))
        self.register_buffer("raw", inverse_scale(torch.tensor(deviation)))

    def forward(self, x: Tensor) -> Tensor:
        shape = (*x.shape[:-1], 2)
        return torch.cat([self.location.expand(shape), self.raw.expand(shape)], -1)


class Exactly(nn.Module):
    """Predicts what the policy does, whatever the other agent did."""

    def __init__(self, network: Constant):
        super().__init__()
        self.network = network

    def forward(self, tensordict: TensorDictBase, given: str, predicted: str, action: Tensor) -> Tensor:
        output = self.network(action).detach()
        return output.unsqueeze(-2).expand(*output.shape[:-1], 2, 4)


def inverse_scale(scale: Tensor) -> Tensor:
    """What ``NormalParamExtractor`` turns into ``scale``."""
    return (scale - 0.01).expm1().log() - math.log(math.expm1(0.99))


class Gaussian(nn.Module):
    """Locations z and 0, before squashing, and one deviation."""

    recurrent = False

    def __init__(self, deviation: float):
        super().__init__()
        self.raw = inverse_scale(torch.tensor(deviation))

    def forward(self, x: Tensor) -> Tensor:
        z = x[..., -1:]
        return torch.cat([z, torch.zeros_like(z), self.raw.expand(*z.shape[:-1], 2)], -1)


class Conditional(nn.Module):
    """The exact distribution of one agent's action before squashing, given the other's."""

    def __init__(self, group: Any, rho: float, deviation: float):
        super().__init__()
        self.group, self.rho = group, rho
        variance = torch.tensor([(1 + deviation**2) * (1 - rho**2), deviation**2])
        self.raw = inverse_scale(variance.sqrt())

    def forward(self, tensordict: TensorDictBase, given: str, predicted: str, action: Tensor) -> Tensor:
        low, high = torch.tensor(self.group.action.low), torch.tensor(self.group.action.high)
        x = ((2 * action - low - high) / (high - low)).clamp(-1 + 1e-12, 1 - 1e-12).atanh()
        loc = torch.stack([self.rho * x[..., 0], torch.zeros_like(x[..., 0])], -1)
        output = torch.cat([loc, self.raw.expand_as(loc)], -1)
        return output.unsqueeze(-2).expand(*output.shape[:-1], 2, 4)


def test_mistakes_are_named() -> None:
    team = herd("continuous")
    with pytest.raises(UserError, match=r"MutualInformation: weight=-1\.0: expected 0 or more"):
        information(team, weight=-1.0)
    with pytest.raises(UserError, match="MutualInformation: latent_samples=-1: expected 0 or more"):
        information(team, latent_samples=-1)
    with pytest.raises(UserError, match="the actor of group 'wolves' reads no root key 'latent'"):
        make(team, mutual_information=information(team))
    with pytest.raises(UserError, match="ActionPredictors: team has a single agent"):
        ActionPredictors(TeamSpec((group_spec("alone", 1, "continuous"),)), make_network(False))
    loss, _, _, _ = make(team, latent_dim=LATENT, mutual_information=information(team))
    with pytest.raises(UserError, match=r"key 'latent'.* is missing.*store what TeamLatent drew"):
        loss(batch_of(team).exclude("latent"))
