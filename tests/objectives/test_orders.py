"""Losses of critics that see agents in a random order."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import TensorDictBase

from ctde_kit.modules import RandomOrderCritic, action_value_critic, value_critic
from ctde_kit.objectives import AdvantageEstimator, MADDPGLoss, MAPPOLoss
from ctde_kit.specs import TeamSpec
from tests.contracts.fakes import add_targets, collect, endings, group_spec, make_actor, make_network
from tests.objectives.maddpg import formulas
from tests.objectives.maddpg.test_loss import TEAMS, make

SIZE = 7
SEEN = ("observation", "action_vector")


class Watched(torch.nn.Module):
    """Keeps what the critic inside a random order is shown."""

    shown: list[TensorDictBase]

    def __init__(self, critic: Any, shown: list[TensorDictBase]):
        super().__init__()
        self.critic = critic
        self.__dict__["shown"] = shown

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(name) if name in ("critic", "shown") else getattr(self.critic, name)

    def __deepcopy__(self, memo: dict) -> Watched:
        import copy

        return Watched(copy.deepcopy(self.critic, memo), [])

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        self.shown.append(tensordict.copy())
        return self.critic(tensordict)


def maddpg(heads: str) -> tuple[MADDPGLoss, dict[str, Any], TeamSpec]:
    team = TEAMS["two"]("continuous")
    _, actors, _ = make(team)
    critics = {}
    for group in team:
        inner = action_value_critic(team, group, make_network(False, heads != "network"), heads=heads)
        critics[group.name] = RandomOrderCritic(team, inner)
    loss = MADDPGLoss(actors, critics, gamma=0.9, **formulas.PLAIN)
    for parameter in loss.target_networks.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    return loss, actors, team


@pytest.mark.parametrize("heads", ["agent", "network"])
def test_maddpg_shows_one_order_of_each_sample_now_and_next(heads: str) -> None:
    loss, actors, team = maddpg(heads)
    batch = formulas.transitions(actors, team, SIZE)
    shown: dict[str, list[TensorDictBase]] = {"online": [], "target": []}
    for name, critic in (("online", loss.critics["sheep"]), ("target", loss.target_networks["critic_sheep"])):
        critic.critic = Watched(critic.critic, shown[name])
    torch.manual_seed(3)
    loss(batch)
    torch.manual_seed(3)
    orders = {group.name: torch.rand(SIZE, 1, group.n_agents).argsort(-1)[:, 0] for group in team}
    now, following = shown["online"][0], shown["target"][0]
    do_next = formulas.target_actions(loss, actors, batch)
    for group in team:
        name = group.name
        for b in range(SIZE):
            for place, agent in enumerate(orders[name][b].tolist()):
                assert torch.equal(now[name, "observation"][b, 0, place], batch[name, "observation"][b, agent])
                assert torch.equal(now[name, "action_vector"][b, 0, place], batch[name, "action"][b, agent])
                seen = following[name, "observation"][b, 0, place]
                assert torch.equal(seen, batch["next", name, "observation"][b, agent])
                torch.testing.assert_close(following[name, "action_vector"][b, 0, place], do_next[name][b, agent])
    assert not torch.equal(orders["wolves"][0], orders["wolves"][1])
    assert ("wolves", "order") not in batch.keys(True)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("current", [False, True])
@pytest.mark.parametrize("heads", ["agent", "network"])
def test_maddpg_is_the_papers_in_any_order(heads: str, current: bool) -> None:
    loss, actors, team = maddpg(heads)
    loss.other_actions = "current" if current else "replay"
    batch = formulas.transitions(actors, team, SIZE)
    for critic in loss.critics.values():
        batch = critic.draw_order(batch)
    found = loss(batch)
    policy, value = formulas.losses(loss, actors, dict(loss.critics.items()), batch, gamma=0.9, current=current)
    torch.testing.assert_close(found["loss_actor"], policy, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found["loss_value"], value, rtol=1e-9, atol=1e-9)


def ppo(recurrent_actor: bool) -> tuple[MAPPOLoss, Any, TensorDictBase]:
    group = group_spec("wolves", 4)
    team = TeamSpec((group,))
    actor = make_actor(group, recurrent_actor)
    batch, _ = collect(team, {"wolves": actor}, *endings())
    critic = RandomOrderCritic(team, value_critic(team, group, make_network(False)))
    return MAPPOLoss(actor, critic, keys=group.keys, clip_value=None), critic, batch


def test_stored_values_are_of_the_agents_own_order() -> None:
    _, critic, batch = ppo(False)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    AdvantageEstimator(critic, group_spec("wolves", 4).keys, gamma=0.9, lmbda=0.8)(batch)
    assert torch.equal(state, torch.get_rng_state())
    expected = critic.critic(batch.select(("wolves", "observation")))["wolves", "state_value"]
    assert torch.equal(batch["wolves", "state_value"], expected)


@pytest.mark.parametrize("sequences", [False, True])
def test_mappo_draws_an_order_a_sample(sequences: bool) -> None:
    loss, critic, batch = ppo(sequences)
    add_targets(batch, group_spec("wolves", 4).keys)
    minibatch = batch if sequences else batch.reshape(-1)
    shown: list[TensorDictBase] = []
    critic.critic = Watched(critic.critic, shown)
    torch.manual_seed(3)
    loss(minibatch)
    torch.manual_seed(3)
    shape = (minibatch.shape[0], 1) if sequences else minibatch.shape
    order = torch.rand(*shape, 4).argsort(-1).expand(*minibatch.shape, 4)
    expected = minibatch["wolves", "observation"].gather(-2, order.unsqueeze(-1).expand(*order.shape, 5))
    assert torch.equal(shown[0]["wolves", "observation"], expected)
    assert ("wolves", "order") not in minibatch.keys(True)
    assert ("wolves", "order") not in loss.in_keys


def test_in_keys_leave_out_what_the_loss_draws() -> None:
    loss, actors, team = maddpg("agent")
    batch = formulas.transitions(actors, team, SIZE)
    assert not [key for key in loss.stored_keys if key[-1] == "order"]
    losses = []
    for data in (batch.select(*loss.in_keys), batch):
        torch.manual_seed(3)
        losses.append(loss(data)["loss_value"])
    assert torch.equal(*losses)
