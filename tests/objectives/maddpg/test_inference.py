"""What agents believe of the others' policies: its loss, its divergence, its use in targets."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch.distributions import Categorical

from ctde_kit.errors import UserError
from ctde_kit.modules import InferredPolicies, MultiAgentMLP
from ctde_kit.objectives import MADDPGLoss, PolicyInference
from ctde_kit.specs import TeamSpec
from tests.contracts.fakes import group_spec
from tests.objectives.maddpg import formulas
from tests.objectives.maddpg.test_loss import GAMMA, TEAMS, gradients, make

SIZE = 40

pytestmark = pytest.mark.usefixtures("float64")


def case(kind: str = "categorical", **options: Any) -> Any:
    team = TEAMS["two"](kind)
    _, actors, critics = make(team)
    networks = InferredPolicies(team, partial(MultiAgentMLP, share_params=False, num_cells=(16,)))
    inference = PolicyInference(networks, **{"deviation": 0.5, **options})
    loss = MADDPGLoss(actors, critics, gamma=GAMMA, inference=inference)
    for parameter in loss.target_networks.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return loss, actors, formulas.transitions(actors, team, SIZE)


def pairs(actors: Any) -> list[tuple[str, int, str, int]]:
    sizes = {name: actor.group.n_agents for name, actor in actors.items()}
    every = [(a, i, b, j) for a in sizes for i in range(sizes[a]) for b in sizes for j in range(sizes[b])]
    return [pair for pair in every if pair[:2] != pair[2:]]


@pytest.mark.parametrize("kind", ["continuous", "categorical"])
def test_loss_and_divergence_by_the_formulas(kind: str) -> None:
    loss, actors, batch = case(kind, entropy_coeff=0.2)
    losses, divergences = [], []
    for observer, i, other, j in pairs(actors):
        actor = actors[other]
        output = loss.inference.networks(batch, observer, other)[:, i, j]
        true = formulas.policy(actor, actor.agent_network, batch)[:, j]
        if kind == "categorical":
            belief = Categorical(logits=output)
            losses.append(-belief.log_prob(batch[other, "action"][:, j]) - 0.2 * belief.entropy())
            divergences.append(torch.distributions.kl_divergence(Categorical(logits=true), belief))
        else:
            low, high = torch.tensor(actor.group.action.low[j]), torch.tensor(actor.group.action.high[j])
            mean, truth = ((low + high) / 2 + (high - low) / 2 * x.tanh() for x in (output, true))
            losses.append(((batch[other, "action"][:, j] - mean) / 0.5).square().sum(-1) / 2)
            divergences.append(((truth - mean) / 0.5).square().sum(-1) / 2)
    found = loss(batch)
    assert set(found.keys()) == set(loss.out_keys)
    torch.testing.assert_close(found["loss_inference"], torch.stack(losses).mean())
    torch.testing.assert_close(found["inference_kl"], torch.stack(divergences).mean())
    mine = {id(p) for p in loss.inference.parameters()}
    learned = [p for p in loss.parameters() if p.requires_grad]
    moved = [bool(g.any()) for g in gradients(found["loss_inference"], loss)]
    assert moved == [id(p) in mine for p in learned]


def test_targets_take_the_others_as_each_agent_believes_them() -> None:
    loss, actors, batch = case("continuous")
    critics, networks = loss.critics, loss.target_networks
    true = formulas.target_actions(loss, actors, batch)
    targets = []
    for observer in critics:
        for i in range(actors[observer].group.n_agents):
            joint = {}
            for other, actor in actors.items():
                beliefs = networks["inference"].networks(batch["next"], observer, other)[:, i]
                joint[other] = formulas.squash(actor, beliefs)
            joint[observer][:, i] = true[observer][:, i]
            value = formulas.value(networks[f"critic_{observer}"], observer, batch["next"], joint, i)
            targets.append(
                batch["next", observer, "reward"][:, i, 0] + GAMMA * value * ~batch["next", "terminated"][:, 0]
            )
    expected = (torch.stack(targets[:3]).mean() + torch.stack(targets[3:]).mean()) / 2
    torch.testing.assert_close(loss(batch)["target_value"], expected)


@pytest.mark.parametrize("kind", [pytest.param("continuous", marks=pytest.mark.slow), "categorical"])
def test_the_divergence_falls_ten_times_on_a_fixed_policy(kind: str) -> None:
    loss, actors, _ = case(kind, entropy_coeff=0.0)
    for actor in actors.values():  # far from what an untrained network believes
        actor.agent_network.network.layers[-1].weight.data.mul_(5.0)
    optimizer = torch.optim.Adam(loss.inference.parameters(), lr=0.05)
    divergences = []
    for _ in range(100):
        batch = formulas.transitions(actors, TeamSpec(tuple(a.group for a in actors.values()), 4), 128)
        for name, actor in actors.items():
            output = formulas.policy(actor, actor.agent_network, batch).detach()
            discrete = kind == "categorical"
            batch[name, "action"] = Categorical(logits=output).sample() if discrete else formulas.squash(actor, output)
        found = loss(batch)
        optimizer.zero_grad()
        found["loss_inference"].backward()
        optimizer.step()
        divergences.append(found["inference_kl"].item())
    assert divergences[-1] < divergences[0] / 10


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match=r"PolicyInference: deviation=0: expected a number above 0"):
        PolicyInference(torch.nn.Identity(), deviation=0)


def test_the_dead_are_believed_to_do_nothing_and_count_nowhere() -> None:
    team = TeamSpec((group_spec("wolves", 3, "continuous", mask=True),))
    _, actors, critics = make(team)
    networks = InferredPolicies(team, partial(MultiAgentMLP, share_params=False, num_cells=(16,)))
    loss = MADDPGLoss(actors, critics, gamma=GAMMA, inference=PolicyInference(networks))
    batch = formulas.transitions(actors, team, SIZE)
    batch["wolves", "mask"] = batch["next", "wolves", "mask"] = torch.rand(SIZE, 3) < 0.7
    before = loss(batch.clone())
    dead = ~batch["wolves", "mask"]
    for key in (("wolves", "observation"), ("wolves", "action"), ("next", "wolves", "observation")):
        batch[key][dead] = torch.nan
    for name, value in loss(batch).items():
        torch.testing.assert_close(value, before[name], msg=lambda m, n=name: f"{n}: {m}")


def test_action_masks_hold_for_beliefs_and_in_targets() -> None:
    groups = [group_spec("wolves", 3, action_mask=True), group_spec("sheep", 2, observation_dim=8, action_mask=True)]
    team = TeamSpec(tuple(groups))
    _, actors, critics = make(team)
    networks = InferredPolicies(team, partial(MultiAgentMLP, share_params=False, num_cells=(4,)))
    loss = MADDPGLoss(actors, critics, gamma=GAMMA, inference=PolicyInference(networks, entropy_coeff=0.2))
    for parameter in loss.target_networks.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    batch = formulas.transitions(actors, team, SIZE)
    for part in (batch, batch["next"]):
        for group in team:
            part[group.name, "action_mask"] = torch.rand(SIZE, group.n_agents, 6) < 0.5
            part[group.name, "action_mask"][..., 2] = True
    for group in team:
        batch[group.name, "action"] = Categorical(probs=batch[group.name, "action_mask"].double()).sample()

    def masked(output: torch.Tensor, data: Any, name: str) -> torch.Tensor:
        return output.masked_fill(~data[name, "action_mask"], -1e30)

    losses, divergences = [], []
    for observer, i, other, j in pairs(actors):
        belief = Categorical(logits=masked(networks(batch, observer, other)[:, i], batch, other)[:, j])
        output = formulas.policy(actors[other], actors[other].agent_network, batch)
        losses.append(-belief.log_prob(batch[other, "action"][:, j]) - 0.2 * belief.entropy())
        true = Categorical(logits=masked(output, batch, other)[:, j])
        divergences.append(torch.distributions.kl_divergence(true, belief))
    found = loss(batch)
    torch.testing.assert_close(found["loss_inference"], torch.stack(losses).mean())
    torch.testing.assert_close(found["inference_kl"], torch.stack(divergences).mean())

    def best(output: torch.Tensor, name: str) -> torch.Tensor:
        choice = masked(output, batch["next"], name).argmax(-1)
        return torch.nn.functional.one_hot(choice, 6).double()

    true_next = {
        n: best(formulas.policy(a, loss.target_networks[f"actor_{n}"], batch["next"]), n) for n, a in actors.items()
    }
    targets = []
    for observer in actors:
        values = []
        for i in range(actors[observer].group.n_agents):
            beliefs = loss.target_networks["inference"].networks
            joint = {other: best(beliefs(batch["next"], observer, other)[:, i], other) for other in actors}
            joint[observer][:, i] = true_next[observer][:, i]
            value = formulas.value(loss.target_networks[f"critic_{observer}"], observer, batch["next"], joint, i)
            values.append(
                batch["next", observer, "reward"][:, i, 0] + GAMMA * value * ~batch["next", "terminated"][:, 0]
            )
        targets.append(torch.stack(values).mean())
    torch.testing.assert_close(found["target_value"], torch.stack(targets).mean())
