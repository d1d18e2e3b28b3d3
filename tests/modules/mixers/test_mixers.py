"""Mixers: monotonic, over several groups, blind to the dead."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import TensorDict

from ctde_kit.errors import UserError
from ctde_kit.modules import QMixer, QPLEXMixer, VDNMixer, mixer_state
from ctde_kit.specs import TeamSpec
from ctde_kit.testing import check_mixer
from tests.contracts.fakes import group_spec, observe

MIXERS: dict[str, Any] = {
    "vdn": VDNMixer,
    "qmix": QMixer,
    "qmix, two layers": lambda team: QMixer(team, embed_dim=9, hypernet_cells=(11,)),
    "qplex": lambda team: QPLEXMixer(team, n_heads=4, hypernet_cells=(11,)),
}
B, T, A = 4, 7, 6


def team_of(mask: bool = False, kind: str = "categorical", state_dim: int | None = 10) -> TeamSpec:
    wolves = group_spec("wolves", 3, kind, mask=mask)
    sheep = group_spec("sheep", 2, kind, observation_dim=8, mask=mask)
    return TeamSpec((wolves, sheep), state_dim)


def values(team: TeamSpec, *batch: int) -> TensorDict:
    """States, action values, a random joint action and its values."""
    data = observe(team, *batch)
    for group in team:
        every = torch.randn(*batch, group.n_agents, A)
        choose(data, group, every, torch.randint(A, every.shape[:-1]))
    return data


def choose(data: TensorDict, group: Any, every: torch.Tensor, index: torch.Tensor) -> None:
    keys = group.keys
    one_hot = torch.nn.functional.one_hot(index, A)
    data[keys.action] = one_hot if group.action.kind == "one_hot" else index
    data[keys.chosen_action_value] = every.gather(-1, index.unsqueeze(-1))
    data[keys.max_action_value] = every.amax(-1, keepdim=True)


@pytest.mark.parametrize("state_dim", [10, None])
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("kind", ["categorical", "one_hot"])
@pytest.mark.parametrize("name", MIXERS)
def test_all_groups_give_one_value_and_every_parameter_learns(name: str, kind: str, mask: bool, state_dim: Any) -> None:
    team = team_of(mask, kind, state_dim)
    mixer, data = MIXERS[name](team), values(team, B, T)
    assert set(mixer.in_keys) <= set(data.keys(True, True))
    out = mixer(data)["chosen_action_value"]
    assert out.shape == (B, T, 1)
    if name == "vdn":
        return
    out.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in mixer.parameters())


def test_vdn_adds() -> None:
    team = team_of()
    data = values(team, B)
    expected = data["wolves", "chosen_action_value"].sum(1) + data["sheep", "chosen_action_value"].sum(1)
    torch.testing.assert_close(VDNMixer(team)(data)["chosen_action_value"], expected)


@pytest.mark.parametrize("name", MIXERS)
def test_the_doctor_finds_nothing(name: str) -> None:
    team = team_of(mask=True)
    mixer = MIXERS[name](team)
    report = check_mixer(mixer, values(team, B).select(*mixer.in_keys))
    assert {finding.verdict for finding in report.findings} == {"passed"}


def test_a_linear_hypernetwork_by_hand() -> None:
    team = TeamSpec((group_spec(n_agents=2),), state_dim=1)
    mixer = QMixer(team, embed_dim=2)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.zero_()
        mixer.weight_1[0].bias.copy_(torch.tensor([1.0, -2.0, 3.0, 0.5]))  # agent 0: (1, 2), agent 1: (3, 0.5)
        mixer.bias_1[0].bias.copy_(torch.tensor([0.5, -6.0]))
        mixer.weight_2[0].weight.copy_(torch.tensor([[-2.0], [1.0]]))  # the state is 2: (4, 2)
        mixer.bias_2[2].bias.fill_(10.0)
    chosen = torch.tensor([[[1.0], [2.0]]])
    data = TensorDict({("agents", "chosen_action_value"): chosen, "state": torch.tensor([[2.0]])}, [1])
    # Hidden layer: 1 + 6 + 0.5 = 7.5, and elu(2 + 1 - 6) = e^-3 - 1.
    expected = 4 * 7.5 + 2 * (torch.tensor(-3.0).exp() - 1) + 10
    assert mixer(data)["chosen_action_value"].item() == pytest.approx(expected.item())


def test_qplex_by_hand() -> None:
    team = TeamSpec((group_spec(n_agents=2),), state_dim=1)
    mixer = QPLEXMixer(team, n_heads=1, hypernet_cells=())
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.zero_()
        mixer.scale[0].bias.copy_(torch.tensor([2.0, -1.0]))
        mixer.shift[0].bias.copy_(torch.tensor([0.5, 0.25]))
        mixer.head_keys[0].bias.fill_(-8.0)  # each sigmoid is a half: lambda 2
    agents = {
        "chosen_action_value": torch.tensor([[[1.0], [4.0]]]),
        "max_action_value": torch.tensor([[[3.0], [4.0]]]),
        "action": torch.tensor([[0, 1]]),
    }
    data = TensorDict({"agents": agents, "state": torch.ones(1, 1)}, [1])
    # V: 2 * 3 + 0.5 and 4 + 0.25; A: 2 * -2 and 0, twice.
    assert mixer(data)["chosen_action_value"].item() == pytest.approx(6.5 + 4.25 - 8, abs=1e-4)


@pytest.mark.parametrize("garbage", [1e30, torch.inf, torch.nan])
@pytest.mark.parametrize("name", MIXERS)
def test_the_dead_move_nothing(name: str, garbage: float) -> None:
    team = team_of(mask=True, state_dim=None)
    mixer, data = MIXERS[name](team), values(team, B, T)
    clean = mixer(data.clone())["chosen_action_value"]
    for group in team:
        dead = ~data[group.keys.mask]
        for entry in ("observation", "chosen_action_value", "max_action_value"):
            data[group.keys(entry)][dead] = garbage
        data[group.keys.action][dead] = 10**9
    assert torch.equal(mixer(data)["chosen_action_value"], clean)


@pytest.mark.parametrize("name", MIXERS)
def test_a_dead_agent_shifts_nothing(name: str) -> None:
    team = team_of(mask=True)
    mixer, data = MIXERS[name](team), values(team, B)
    alive = data.clone()
    for group in team:
        data[group.keys.mask] = torch.zeros_like(data[group.keys.mask])
        alive[group.keys.mask] = torch.ones_like(alive[group.keys.mask])
        alive[group.keys.chosen_action_value].zero_()
    nobody = mixer(data)["chosen_action_value"]
    if name in ("vdn", "qplex"):
        assert not nobody.any()
    else:  # what QMIX adds of the state stays
        assert torch.equal(nobody, mixer(alive)["chosen_action_value"])


@pytest.mark.parametrize("name", MIXERS)
def test_nothing_is_broadcast_over_agents(name: str) -> None:
    team = team_of()
    data = values(team, B)
    data["wolves", "chosen_action_value"] = data["wolves", "chosen_action_value"][:, :1]
    with pytest.raises(UserError, match=r"wolves.*expected \[4, 3, 1\], found \[4, 1, 1\]"):
        MIXERS[name](team)(data)


def test_the_state_is_the_envs_or_the_observations() -> None:
    assert mixer_state(team_of()).in_keys == ["state"]
    without = team_of(state_dim=None)
    assert mixer_state(without).features == 3 * 5 + 2 * 8
    assert mixer_state(team_of(), "team").features == 3 * 5 + 2 * 8
    with pytest.raises(UserError, match=r"mixer_state: sees='state': .*use sees='team'"):
        mixer_state(without, "state")
