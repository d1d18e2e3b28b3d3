"""Who is moved by whom in a channel, against hand-computed values and channels of the kit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor, nn

import ctde_kit as ck
from ctde_kit.envs.games import CueEnv
from ctde_kit.modules import BidirectionalRNN, MeanMessages, TargetedMessages
from ctde_kit.training.reporting.hearing import HearingRecord, unweighted_channels

HEARS = torch.tensor([[5.0, 1.0, 0.0], [2.0, 5.0, 0.0], [0.0, 4.0, 5.0]])


class Weighed(nn.Module):
    """Agent i hears the sum of ``HEARS[i, j]`` times what j says."""

    def forward(self, encoded: Tensor, mask: Tensor | None = None) -> Tensor:
        return HEARS @ (encoded if mask is None else encoded * mask.unsqueeze(-1))


class Talks(nn.Module):
    def __init__(self, channel: nn.Module):
        super().__init__()
        self.channel = channel


def two_groups() -> ck.TeamSpec:
    """A speaker and a listener."""
    return ck.TeamSpec.from_env(CueEnv(2, two_groups=True))


def navigation() -> ck.TeamSpec:
    return ck.TeamSpec.from_env(ck.VmasEnv("navigation", num_envs=2, scenario_kwargs={"n_agents": 3}))


@pytest.mark.parametrize("with_mask", [False, True])
def test_it_is_what_would_change_if_another_fell_silent(with_mask: bool) -> None:
    talks = Talks(Weighed())
    record = HearingRecord(talks, navigation(), env=1)
    said = torch.tensor([[[9.0, 9.0]] * 3, [[3.0, 4.0], [0.0, 1.0], [8.0, 6.0]]])
    alive: Any = (torch.tensor([[True] * 3, [True, True, False]]),) if with_mask else ()
    talks.channel(said, *alive)
    record(TensorDict())
    talks.channel(2 * said, *alive)
    record(TensorDict())
    # |j| is 5, 1 and 10: agent 0 hears agent 1 (1 x 1), agent 1 agent 0 (2 x 5), agent 2 agent 1 (4 x 1).
    moved = torch.tensor([[0.0, 1.0, 0.0], [10.0, 0.0, 0.0], [0.0, 4.0, 0.0]])
    assert torch.allclose(record.weights["agents"], torch.stack([moved, 2 * moved]) / 20)


def test_records_of_several_episodes_leave_each_other_alone() -> None:
    talks = Talks(Weighed())
    records = [HearingRecord(talks, navigation(), env=0) for _ in range(2)]
    talks.channel(torch.ones(2, 3, 4))
    for record in records:
        record(TensorDict())
    assert torch.equal(records[0].weights["agents"], records[1].weights["agents"])


def test_groups_that_talk_with_each_other_have_rows_of_their_own() -> None:
    team = two_groups()
    talks = Talks(MeanMessages(4))
    record = HearingRecord(talks, team)
    talks.channel(torch.randn(2, 2, 4), None)
    record(TensorDict())
    assert {name: tuple(part.shape) for name, part in record.weights.items()} == {
        group.name: (1, group.n_agents, 2) for group in team
    }
    assert record.labels == [f"{group.name} 0" for group in team]


def test_a_shared_channel_is_one_and_one_with_weights_says_itself() -> None:
    bicnet = BidirectionalRNN(4, 2)
    both = nn.ModuleList([Talks(bicnet), Talks(bicnet), Talks(TargetedMessages(4))])
    assert unweighted_channels(both) == [bicnet]
