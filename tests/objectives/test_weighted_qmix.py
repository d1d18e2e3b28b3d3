"""Weighted QMIX against a plain loop with the paper's formulas, dead agents and two groups among them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.modules.tensordict_module.rnn import recurrent_mode

from ctde_kit.errors import UserError
from ctde_kit.modules import AgentNetwork, FeedForwardMixer, MultiAgentQActor, QMixer, VDNMixer, own_observation
from ctde_kit.objectives import CentralValue, QMixLoss
from ctde_kit.objectives.unroll import next_outputs, unroll
from ctde_kit.specs import TeamSpec
from tests.contracts.fakes import group_spec, make_network

GAMMA, ALPHA, SIZE = 0.9, 0.3, 61

pytestmark = pytest.mark.usefixtures("float64")


TEAM = TeamSpec(
    (
        group_spec("wolves", 3, "categorical", mask=True, action_mask=True),
        group_spec("sheep", 2, "one_hot", observation_dim=8),
    ),
    state_dim=7,
)


def new_actors(recurrent: bool = False) -> dict[str, Any]:
    """An actor of every group, with parameters of its own for each agent."""
    return {
        group.name: MultiAgentQActor(
            group,
            own_observation(group),
            make_network(recurrent, share=False)(group.observation_dim, group.action.vector_dim, group.n_agents),
        )
        for group in TEAM
    }


def make(weighting: Any, recurrent: bool = False, **options: Any) -> QMixLoss:
    """The loss; its target networks are other networks than the online ones."""
    networks = {name: actor.agent_network for name, actor in new_actors(recurrent).items()}
    central = CentralValue(networks, FeedForwardMixer(TEAM, num_cells=(9, 8)), weighting, alpha=ALPHA)
    loss = QMixLoss(new_actors(recurrent), QMixer(TEAM), gamma=GAMMA, value_loss="l2", central=central, **options)
    assert loss.target_networks is not None
    for parameter in loss.target_networks.parameters():
        parameter.add_(0.5 * torch.randn_like(parameter))
    return loss


def transitions() -> TensorDictBase:
    """Random transitions: some terminate, some wolves are dead, some die, and some may not do everything."""
    data = TensorDict({"next": TensorDict({}, [SIZE])}, [SIZE])
    for part in (data, data["next"]):
        part["state"] = torch.randn(SIZE, 7)
        for group in TEAM:
            part[group.name, "observation"] = torch.randn(SIZE, group.n_agents, group.observation_dim)
        part["wolves", "action_mask"] = torch.rand(SIZE, 3, 6) < 0.5
        part["wolves", "action_mask"][..., 0] = True
    data["wolves", "action"] = torch.randint(6, (SIZE, 3))
    data["sheep", "action"] = torch.nn.functional.one_hot(torch.randint(6, (SIZE, 2)), 6)
    data["next", "reward"] = torch.randn(SIZE, 1)
    data["next", "terminated"] = torch.rand(SIZE, 1) < 0.3
    data["next", "done"] = data["next", "terminated"].clone()
    alive = torch.rand(SIZE, 3) < 0.7
    data["wolves", "mask"], data["next", "wolves", "mask"] = alive, alive & (torch.rand(SIZE, 3) < 0.8)
    return data


def greedy(values: dict[str, Tensor], data: TensorDictBase) -> dict[str, Tensor]:
    """Each agent's best allowed action."""
    allowed = values["wolves"].masked_fill(~data["wolves", "action_mask"], -torch.inf)
    return {"wolves": allowed.argmax(-1), "sheep": values["sheep"].argmax(-1)}


def mixed(mixer: Any, values: dict[str, Tensor], index: dict[str, Tensor], data: TensorDictBase) -> Tensor:
    """The team's value ``[*B]`` of the actions ``index``."""
    entries = TensorDict({"state": data["state"], "wolves": {"mask": data["wolves", "mask"]}}, data.shape)
    for name in values:
        entries[name, "chosen_action_value"] = values[name].gather(-1, index[name].unsqueeze(-1))
    return mixer(entries)["chosen_action_value"].squeeze(-1)


def expected(loss: QMixLoss, data: TensorDictBase) -> tuple[Tensor, Tensor, Tensor]:
    """Both losses and the mean weight, transition by transition."""
    central, targets = loss.central, loss.target_networks
    assert central is not None
    assert targets is not None
    taken = {"wolves": data["wolves", "action"], "sheep": data["sheep", "action"].argmax(-1)}

    def values(networks: Any, entries: TensorDictBase) -> dict[str, Tensor]:
        return {name: networks[name](entries.copy())[name, "action_value"] for name in ("wolves", "sheep")}

    online = {name: actor.agent_network for name, actor in loss.actors.items()}
    target = {name: targets[f"central_{name}"] for name in online}
    now, following = values(online, data), values(online, data["next"])
    q_tot = mixed(loss.mixer, now, taken, data)
    q_star = mixed(central.mixer, values(central.networks, data), taken, data)
    with torch.no_grad():
        best = greedy(now, data)
        best_value = mixed(targets["central_mixer"], values(target, data), best, data)
        next_best = greedy(following, data["next"])
        next_value = mixed(targets["central_mixer"], values(target, data["next"]), next_best, data["next"])
    totals, centrals, weights = [], [], []
    for i in range(SIZE):
        bootstrap = 0.0 if data["next", "terminated"][i].item() else next_value[i].item()
        y = data["next", "reward"][i].item() + GAMMA * bootstrap
        if central.weighting == "optimistic":
            matters = q_tot[i].item() < y
        else:
            alive = data["wolves", "mask"][i]
            wolves = (taken["wolves"][i] == best["wolves"][i])[alive].all().item()
            matters = (wolves and torch.equal(taken["sheep"][i], best["sheep"][i])) or y > best_value[i].item()
        weights.append(1.0 if matters else ALPHA)
        totals.append(weights[-1] * (q_tot[i] - y) ** 2 / 2)
        centrals.append((q_star[i] - y) ** 2 / 2)
    return sum(totals) / SIZE, sum(centrals) / SIZE, torch.tensor(weights).mean()


@pytest.mark.parametrize("weighting", ["optimistic", "central"])
def test_losses_and_gradients_are_the_papers(weighting: str) -> None:
    torch.manual_seed(3)
    loss, data = make(weighting), transitions()
    best = greedy({n: a.agent_network(data.copy())[n, "action_value"] for n, a in loss.actors.items()}, data)
    alive, other = data["wolves", "mask"], (best["wolves"] + 1) % 6
    best["wolves"] = best["wolves"].where(alive, other)
    for name, actor in loss.actors.items():  # some joint actions are the best ones, apart from dead agents'
        data[name, "action"][:29] = actor.encode(best[name])[:29]
    assert not alive[:29].all()
    total, central, weight = expected(loss, data)
    parameters = [parameter for parameter in loss.parameters() if parameter.requires_grad]
    right = torch.autograd.grad(total + central, parameters)
    found = loss(data)
    assert found["loss_qvalue"].item() == pytest.approx(total.item(), rel=1e-9)
    assert found["loss_central"].item() == pytest.approx(central.item(), rel=1e-9)
    assert found["weight"].item() == pytest.approx(weight.item())
    assert ALPHA < weight < 1
    gradients = torch.autograd.grad(found["loss_qvalue"] + found["loss_central"], parameters)
    for gradient, other in zip(gradients, right, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-8, atol=1e-10)


def test_with_a_weight_of_one_all_errors_count_alike() -> None:
    torch.manual_seed(0)
    loss, data = make("optimistic"), transitions()
    assert loss.central is not None
    loss.central.alpha = 1.0
    found = loss(data)
    assert found["weight"] == 1
    assert found["loss_qvalue"].item() == pytest.approx((data["td_error"].square().mean() / 2).item())


def test_recurrent_central_values_do_not_start_from_the_actors_hidden_state() -> None:
    torch.manual_seed(0)
    loss = make("central", recurrent=True)
    data = torch.stack([transitions() for _ in range(4)], 1)
    data["is_init"] = torch.zeros(SIZE, 4, 1, dtype=torch.bool)
    networks = [actor.agent_network for actor in loss.actors.values()]
    for network in networks:
        data[network.hidden_key] = torch.randn(SIZE, 4, *network.hidden_shape)
    assert loss.central is not None
    actors: Any = dict(loss.actors.items())
    value, chosen = (loss.central.learned(actors, data, data, "chosen_action_value"), loss(data)["chosen_action_value"])
    for network in networks:
        data[network.hidden_key] += 1.0
    assert torch.equal(loss.central.learned(actors, data, data, "chosen_action_value"), value)
    assert loss(data)["chosen_action_value"] != chosen


def sequences(length: int = 5) -> tuple[QMixLoss, TensorDictBase]:
    """CW-QMIX's loss of recurrent networks, and random sequences with resets inside."""
    torch.manual_seed(0)
    loss = make("central", recurrent=True)
    data = torch.stack([transitions() for _ in range(length)], 1)
    data["is_init"] = torch.rand(SIZE, length, 1) < 0.2
    for actor in loss.actors.values():
        network = actor.agent_network
        data[network.hidden_key] = torch.randn(SIZE, length, *network.hidden_shape)
    return loss, data


def test_each_recurrent_network_is_unrolled_once_per_loss() -> None:
    loss, data = sequences()
    networks = [part for part in loss.modules() if isinstance(part, AgentNetwork)]
    unrolls = [0] * len(networks)

    def count(network: Any, *_: Any) -> None:
        unrolls[networks.index(network)] += recurrent_mode()

    for network in networks:
        network.register_forward_hook(count)
    loss(data)
    assert unrolls == [1] * 6  # of two groups the actors' networks, the central ones, and the latter's targets


@torch.no_grad()
def target_values(loss: QMixLoss, data: TensorDictBase) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The target networks' values of each step and of each next observation, one step after the other, from zero."""
    assert loss.target_networks is not None
    here, following = {}, {}
    for name in loss.actors.keys():  # noqa: SIM118  # a module's own method
        network: Any = loss.target_networks[f"central_{name}"]
        hidden, now, later = torch.zeros_like(data[network.hidden_key][:, 0]), [], []
        for t in range(data.shape[1]):
            out = network(data[:, t].copy().set(network.hidden_key, hidden))
            hidden = out["next", *network.hidden_key]
            after = data["next"][:, t].copy().set(network.hidden_key, hidden)
            after["is_init"] = torch.zeros_like(out["is_init"])
            now.append(out[name, "action_value"])
            later.append(network(after)[name, "action_value"])
        here[name], following[name] = torch.stack(now, 1), torch.stack(later, 1)
    return here, following


@torch.no_grad()
def test_recurrent_targets_and_weights_equal_those_of_single_steps() -> None:
    loss, data = sequences()
    networks = {name: actor.agent_network for name, actor in loss.actors.items()}
    now = {name: unroll(network, data) for name, network in networks.items()}
    best = greedy({name: out[name, "action_value"] for name, out in now.items()}, data)
    following = {name: next_outputs(networks[name], data, now[name])[name, "action_value"] for name in networks}
    next_best = greedy(following, data["next"])
    assert loss.target_networks is not None
    mixer: Any = loss.target_networks["central_mixer"]
    here, after = target_values(loss, data)
    best_value, next_value = mixed(mixer, here, best, data), mixed(mixer, after, next_best, data["next"])
    y = (data["next", "reward"] + GAMMA * next_value.unsqueeze(-1).masked_fill(data["next", "terminated"], 0)).squeeze(
        -1
    )
    wolves = (data["wolves", "action"] == best["wolves"]) | ~data["wolves", "mask"]
    matters = wolves.all(-1) & (data["sheep", "action"].argmax(-1) == best["sheep"]).all(-1) | (y > best_value)
    found = loss(data)
    torch.testing.assert_close(found["target_value"], y.mean(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found["weight"], torch.where(matters, 1.0, ALPHA).mean())
    assert ALPHA < found["weight"] < 1


def test_what_does_not_fit_is_refused() -> None:
    networks = {name: actor.agent_network for name, actor in new_actors().items()}
    mixer = FeedForwardMixer(TEAM)
    with pytest.raises(UserError, match="alpha=0: expected a weight above 0"):
        CentralValue(networks, mixer, alpha=0)
    with pytest.raises(UserError, match="weighting='pessimistic': expected one of optimistic, central"):
        CentralValue(networks, mixer, "pessimistic")
    central = CentralValue(networks, mixer)
    with pytest.raises(UserError, match="central is given with mixer=None"):
        QMixLoss(new_actors(), gamma=GAMMA, central=central)
    with pytest.raises(UserError, match="use_target_networks=False"):
        QMixLoss(new_actors(), VDNMixer(TEAM), gamma=GAMMA, central=central, use_target_networks=False)
    less = CentralValue({"wolves": networks["wolves"]}, mixer)
    with pytest.raises(UserError, match="networks of wolves: expected one of every group"):
        QMixLoss(new_actors(), VDNMixer(TEAM), gamma=GAMMA, central=less)
