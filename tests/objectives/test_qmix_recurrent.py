"""The double-Q loss of recurrent networks: sequences, resets inside, burn-in, exact next values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.modules import set_recurrent_mode

from ctde_kit.errors import UserError
from ctde_kit.modules import AgentNetwork, QMixer, VDNMixer
from ctde_kit.objectives import QMixLoss, TeamReward
from ctde_kit.specs import TeamSpec
from tests.contracts.fakes import SHARINGS, collect, endings, group_spec, make_q_actor

LENGTH = 9
KEY = ("agents", "action_value")
HIDDEN = ("agents", "actor_hidden")


def case(
    share: Any = True, make_mixer: Any = QMixer, state_dim: int | None = 10, **options: Any
) -> tuple[QMixLoss, TensorDictBase]:
    """A loss whose targets are other networks, and a batch with ends inside, collected from the middle of episodes."""
    team = TeamSpec((group_spec(action_mask=True),), state_dim=state_dim)
    actors = {"agents": make_q_actor(team["agents"], recurrent=True, share=share)}
    _, next_root = collect(team, actors, *endings(length=LENGTH))
    batch, _ = collect(team, actors, *endings(length=LENGTH), next_root)
    loss = QMixLoss(actors, make_mixer(team), gamma=0.9, **{"value_loss": "l2", **options})
    for parameter in loss.target_networks.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return loss, TeamReward(team, "sum")(batch)


@torch.no_grad()
def step_by_step(network: AgentNetwork, batch: TensorDictBase) -> tuple[Tensor, Tensor]:
    """Values of each step and of each next observation ``[B, T, n, A]``, one step after the other."""
    here, following = [], []
    hidden = batch[HIDDEN][:, 0]
    for t in range(batch.shape[1]):
        step = batch[:, t].copy().set(HIDDEN, hidden)
        if t == 0:  # what was stored there was used there
            step.set("is_init", torch.zeros_like(step["is_init"]))
        out = network(step)
        here.append(out[KEY])
        hidden = out[("next", *HIDDEN)]
        after = batch["next"][:, t].copy().set(HIDDEN, hidden)
        following.append(network(after.set("is_init", torch.zeros_like(step["is_init"])))[KEY])
    return torch.stack(here, 1), torch.stack(following, 1)


def by_hand(loss: QMixLoss, batch: TensorDictBase) -> Tensor:
    online, target = loss.actors["agents"].agent_network, loss.target_networks["actor_agents"]
    here, following = step_by_step(online, batch)
    _, valued = step_by_step(target, batch)
    allowed = batch["next", "agents", "action_mask"]
    choice = following.masked_fill(~allowed, -1e9).argmax(-1, keepdim=True)
    data = batch.copy().set(("agents", "chosen_action_value"), here.gather(-1, batch["agents", "action"].unsqueeze(-1)))
    after = batch["next"].copy().set(("agents", "chosen_action_value"), valued.gather(-1, choice))
    value = loss.mixer(data)["chosen_action_value"]
    bootstrap = loss.target_networks["mixer"](after)["chosen_action_value"].masked_fill(batch["next", "terminated"], 0)
    return (value - batch["next", "reward"] - 0.9 * bootstrap).square() / 2


@pytest.mark.parametrize("share", SHARINGS)
def test_values_and_targets_equal_those_of_single_steps_across_resets(share: Any) -> None:
    loss, batch = case(share)
    assert batch["is_init"][:, 1:].any()
    torch.testing.assert_close(loss(batch)["loss_qvalue"], by_hand(loss, batch).mean(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("burn_in", [2, 3, 5])
def test_burn_in_steps_are_in_no_mean(burn_in: int) -> None:
    loss, batch = case(burn_in=burn_in)
    expected = by_hand(loss, batch)[:, burn_in:].mean()
    torch.testing.assert_close(loss(batch)["loss_qvalue"], expected, rtol=1e-5, atol=1e-6)
    batch["next", "reward"][:, :burn_in] = torch.nan
    torch.testing.assert_close(loss(batch)["loss_qvalue"], expected, rtol=1e-5, atol=1e-6)


def test_burn_in_gives_no_gradient_but_warms_both_networks_up() -> None:
    loss, batch = case(burn_in=3)
    observation = batch["agents", "observation"].requires_grad_()
    losses = loss(batch)
    gradient = torch.autograd.grad(losses["loss_qvalue"], observation)[0]
    assert not gradient[:, :3].any()
    assert gradient[:, 3:].any(-1).all()
    for network, name in ((loss.actors, "chosen_action_value"), (loss.target_networks["actor_agents"], "target_value")):
        changed = batch.clone()
        with torch.no_grad():
            changed["agents", "observation"][:, 1] += 1
        assert loss(changed)[name] != losses[name], network


def test_a_sequence_starts_from_the_stored_hidden_state_or_from_zero() -> None:
    stored, batch = case()
    zero, _ = case(use_stored_hidden=False)
    zero.load_state_dict(stored.state_dict())
    batch["is_init"][:, 0] = False
    moved = batch.clone()
    moved[HIDDEN] = torch.zeros_like(moved[HIDDEN])
    assert stored(batch)["loss_qvalue"] != stored(moved)["loss_qvalue"]
    assert torch.equal(zero(batch)["loss_qvalue"], zero(moved)["loss_qvalue"])
    assert torch.equal(zero(batch)["loss_qvalue"], stored(moved)["loss_qvalue"])


def test_a_marked_slice_start_keeps_its_stored_hidden_state() -> None:
    loss, batch = case()
    marked = batch.clone()
    marked["is_init"][:, 0] = True
    torch.testing.assert_close(loss(marked)["loss_qvalue"], loss(batch)["loss_qvalue"])


@pytest.mark.parametrize("missing", ["is_init", HIDDEN])
def test_missing_entries_are_errors(missing: Any) -> None:
    loss, batch = case()
    with pytest.raises(UserError, match="is_init" if missing == "is_init" else "actor_hidden"):
        loss(batch.exclude(missing))


def test_shuffled_steps_are_no_sequence() -> None:
    loss, batch = case()
    with pytest.raises(UserError, match="recurrent networks learn sequences"):
        loss(batch.reshape(-1))


def test_gradients_flow_through_time_within_a_sequence_alone() -> None:
    loss, batch = case()
    observation = batch["agents", "observation"].requires_grad_()
    with set_recurrent_mode(True):
        values = loss.actors["agents"].agent_network(batch.copy())[KEY]
    gradient = torch.autograd.grad(values[:, -1].sum(), observation)[0].flatten(2).any(-1)
    starts = [max(t for t in range(LENGTH) if t == 0 or batch["is_init"][env, t]) for env in range(len(batch))]
    for env, start in enumerate(starts):
        assert gradient[env].tolist() == [t >= start for t in range(LENGTH)]


def test_vdn_needs_no_state() -> None:
    loss, batch = case(make_mixer=VDNMixer, state_dim=None)
    assert "state" not in batch.keys()  # noqa: SIM118
    torch.testing.assert_close(loss(batch)["loss_qvalue"], by_hand(loss, batch).mean(), rtol=1e-5, atol=1e-6)
