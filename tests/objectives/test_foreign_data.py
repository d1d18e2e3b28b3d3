"""Targets of batches that others wrote: padding without ``done``, deaths without flags, ``terminated`` alone."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from torchrl.collectors.utils import split_trajectories

from ctde_kit.entries import agent_flags, alive_next
from ctde_kit.keys import GroupKeys
from ctde_kit.modules import VDNMixer, value_critic
from ctde_kit.objectives import (
    AdvantageEstimator,
    MAPPOLoss,
    NStepReturn,
    QMixLoss,
    TDLambdaReturn,
    generalized_advantage_estimate,
    n_step_return,
)
from ctde_kit.specs import TeamSpec
from tests.contracts.fakes import collect, group_spec, make_actor, make_network, make_q_actor

KEYS = GroupKeys()


def split(batch: TensorDict) -> TensorDict:
    """The batch's episodes as TorchRL pads them; garbage stands in the padding."""
    batch = batch.clone()
    trajectories = torch.zeros(batch.shape, dtype=torch.long)
    ends = batch["next", "done"].squeeze(-1)
    trajectories[:, 1:] = ends[:, :-1].cumsum(1)
    trajectories += torch.arange(len(batch)).unsqueeze(-1) * 100
    batch["collector", "traj_ids"] = trajectories
    padded = split_trajectories(batch)
    for value in padded.values(True, True):
        if value.is_floating_point():
            value[~padded["collector", "mask"]] = 77.0
    for key in ("done", "terminated"):
        padded["next", key][~padded["collector", "mask"]] = True
    return padded


def q_case() -> tuple[TeamSpec, object, TensorDict]:
    team = TeamSpec((group_spec(kind="categorical"),))
    actor = make_q_actor(team["agents"])
    done = torch.zeros(3, 8, dtype=torch.bool)
    done[0, 2] = done[1, 5] = True
    batch, _ = collect(team, {"agents": actor}, done, torch.zeros_like(done))
    return team, actor, batch


@pytest.mark.parametrize("returns", [NStepReturn(3), TDLambdaReturn(0.8)])
def test_padding_behind_a_step_that_is_not_done_changes_no_target(returns: object) -> None:
    team, actor, batch = q_case()
    batch["next", "reward"] = torch.randn(3, 8, 1)
    loss = QMixLoss({"agents": actor}, VDNMixer(team), gamma=0.9, returns=returns)
    padded = split(batch)
    assert padded.shape[1] == 8
    assert not padded["collector", "mask"].all()
    whole, pieces = loss(batch), loss(padded)
    for name in ("loss_qvalue", "target_value", "td_error"):
        torch.testing.assert_close(pieces[name], whole[name])


def test_padding_changes_no_advantage_and_no_loss_of_mappo() -> None:
    team = TeamSpec((group_spec(kind="categorical"),))
    actor, critic = make_actor(team["agents"]), value_critic(team, team["agents"], make_network(False, True))
    done = torch.zeros(3, 8, dtype=torch.bool)
    done[0, 2] = done[1, 5] = True
    batch, _ = collect(team, {"agents": actor}, done, torch.zeros_like(done))
    estimator = AdvantageEstimator(critic, KEYS, gamma=0.9, lmbda=0.8)
    whole, pieces = estimator(batch.clone()), estimator(split(batch))
    valid = pieces["collector", "mask"]
    # Both in the order of time, env by env.
    torch.testing.assert_close(pieces["agents", "advantage"][valid], whole["agents", "advantage"].flatten(0, 1))
    assert not pieces["agents", "advantage"][~valid].any()
    loss = MAPPOLoss(actor, critic, keys=KEYS)
    theirs, ours = loss(pieces), loss(whole)
    for name in ("loss_objective", "loss_critic", "loss_entropy", "approx_kl", "explained_variance"):
        torch.testing.assert_close(theirs[name], ours[name], rtol=1e-4, atol=1e-5)


def test_an_agent_that_is_gone_without_a_flag_is_not_bootstrapped() -> None:
    """Two agents, gamma 0.9, rewards 0.259 and 0: agent 1 dies while the team goes on."""
    mask, next_mask = torch.tensor([[True, True]]), torch.tensor([[True, False]])
    flag = torch.zeros(1, 1, dtype=torch.bool)
    data = TensorDict(
        {
            ("agents", "mask"): mask,
            ("next", "agents", "mask"): next_mask,
            ("next", "agents", "reward"): torch.tensor([[[0.0], [0.259]]]),
            ("next", "done"): flag,
            ("next", "terminated"): flag,
        },
        [1],
    )
    done, terminated = agent_flags(data, KEYS, data["next", "agents", "reward"])
    assert terminated.flatten().tolist() == [False, True]
    assert done.flatten().tolist() == [False, True]
    assert alive_next(data, KEYS).tolist() == [[True, False]]
    # A time limit: everyone leaves, and what they see then has a value.
    data["next", "done"] = ~flag
    assert agent_flags(data, KEYS, data["next", "agents", "reward"])[1].any().item() is False
    assert alive_next(data, KEYS).tolist() == [[True, True]]
    # The env says itself who terminated: agent 1 ran out of its own time.
    data["next", "done"] = flag
    data["next", "agents", "terminated"] = torch.zeros(1, 2, 1, dtype=torch.bool)
    assert alive_next(data, KEYS).tolist() == [[True, True]]
    assert not agent_flags(data, KEYS, data["next", "agents", "reward"])[1].any()


def test_terminated_ends_every_trace_with_or_without_done() -> None:
    column = lambda *values: torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1)  # noqa: E731
    never, middle = column(0, 0, 0).bool(), column(0, 1, 0).bool()
    reward, next_value, value = column(1, 2, 3), column(4, 10, 8), column(2, 4, 6)
    for done in (never, middle):
        # 2 - 4 = -2 in the middle, and nothing later reaches it: 1 + 0.5*4 - 2 + 0.25 * -2 = 0.5.
        advantage = generalized_advantage_estimate(0.5, 0.5, value, next_value, reward, done, middle)
        assert advantage.flatten().tolist() == [0.5, -2, 1]
        # 1 + 0.5*2 = 2 in two steps, 2 alone in the middle.
        assert n_step_return(0.5, 3, next_value, reward, done, middle).flatten().tolist() == [2, 2, 7]
