"""What networks see."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict

from ctde_kit.errors import UserError
from ctde_kit.modules import agent_state, global_state, own_observation, team_observation
from ctde_kit.specs import TeamSpec
from tests.contracts.fakes import group_spec, observe

B = 4
WOLVES = group_spec("wolves", 3, state_dim=11)
SHEEP = group_spec("sheep", 2, observation_dim=8)
TEAM = TeamSpec((WOLVES, SHEEP), state_dim=10)
MORTAL = group_spec(mask=True, state_dim=11)


def test_own_observation_is_the_observation() -> None:
    data = observe(TEAM, B)
    assert torch.equal(own_observation(WOLVES)(data), data["wolves", "observation"])


def test_an_agent_id_is_appended() -> None:
    inputs = own_observation(WOLVES, agent_id=True)
    x = inputs(observe(TEAM, B, 7))
    assert x.shape == (B, 7, 3, inputs.features)
    assert torch.equal(x[..., 5:], torch.eye(3).expand(B, 7, 3, 3))


def test_normalization_is_over_an_agents_features_and_leaves_the_id_alone() -> None:
    data = observe(TEAM, B)
    data["wolves", "observation"] *= 100
    x = own_observation(WOLVES, agent_id=True, normalize=True)(data)
    torch.testing.assert_close(x[..., :5].mean(-1), torch.zeros(B, 3), rtol=0, atol=1e-5)
    torch.testing.assert_close(x[..., :5].std(-1, correction=0), torch.ones(B, 3), rtol=0, atol=1e-3)
    assert torch.equal(x[..., 5:], torch.eye(3).expand(B, 3, 3))


def test_the_team_is_seen_group_by_group_and_agent_by_agent() -> None:
    data = observe(TEAM, B)
    wolves, sheep = data["wolves", "observation"], data["sheep", "observation"]
    expected = torch.cat([*wolves.unbind(1), *sheep.unbind(1)], -1)
    assert torch.equal(team_observation(TEAM, SHEEP)(data), expected[:, None])
    assert torch.equal(team_observation(TEAM, WOLVES, repeat=True)(data), expected[:, None].expand(B, 3, -1))


def test_the_global_state_has_no_agents() -> None:
    data = observe(TEAM, B)
    assert torch.equal(global_state(TEAM, WOLVES)(data), data["state"][:, None])
    assert global_state(TEAM, SHEEP, agent_id=True)(data).shape == (B, 2, 12)


def test_the_agent_state_is_the_agents() -> None:
    data = observe(TEAM, B)
    assert torch.equal(agent_state(WOLVES)(data), data["wolves", "state"])


def test_an_env_without_states_is_an_error() -> None:
    with pytest.raises(UserError, match="no root key 'state'"):
        global_state(TeamSpec((SHEEP,)), SHEEP)
    with pytest.raises(UserError, match=r"no key \('sheep', 'state'\)"):
        agent_state(SHEEP)


@pytest.mark.parametrize("garbage", [1e30, torch.inf, torch.nan])
def test_entries_of_dead_agents_are_zero(garbage: float) -> None:
    team = TeamSpec((MORTAL,))
    data = observe(team, B)
    data["agents", "mask"] = torch.tensor([[True, False, True]]).expand(B, 3)
    data["agents", "observation"][:, 1] = garbage
    data["agents", "state"][:, 1] = garbage
    assert not own_observation(MORTAL)(data)[:, 1].any()
    assert not team_observation(team, MORTAL)(data)[:, 0, 5:10].any()
    assert not agent_state(MORTAL)(data)[:, 1].any()
    assert own_observation(MORTAL, normalize=True)(data).isfinite().all()


def test_only_own_data_is_decentralized() -> None:
    assert own_observation(WOLVES).decentralized
    for inputs in (team_observation(TEAM, WOLVES), global_state(TEAM, WOLVES), agent_state(WOLVES)):
        assert not inputs.decentralized


@pytest.mark.parametrize("normalize", [False, True])
def test_for_agent_sees_its_slice(normalize: bool) -> None:
    team = TeamSpec((MORTAL,))
    data = observe(team, B)
    inputs = own_observation(MORTAL, agent_id=True, normalize=normalize)
    for agent in range(3):
        single = TensorDict({"agents": {key: data["agents", key][:, agent] for key in ("observation", "mask")}}, [B])
        torch.testing.assert_close(inputs.for_agent(agent)(single), inputs(data)[:, agent : agent + 1])


@pytest.mark.parametrize("missing", ["observation", "mask"])
def test_a_missing_entry_is_named(missing: str) -> None:
    data = observe(TeamSpec((MORTAL,)), B)
    with pytest.raises(UserError, match=rf"'{missing}'\) is missing"):
        own_observation(MORTAL)(data.exclude(("agents", missing)))


def test_one_observation_is_not_repeated_over_agents() -> None:
    data = TensorDict({"wolves": {"observation": torch.randn(B, 1, 5)}}, [B])
    with pytest.raises(UserError, match=r"'observation'\): expected .*n_agents=3"):
        own_observation(WOLVES)(data)


def test_one_mask_is_not_repeated_over_agents() -> None:
    data = observe(TeamSpec((MORTAL,)), B)
    data["agents", "mask"] = torch.ones(B, 1, dtype=torch.bool)
    with pytest.raises(UserError, match=r"'mask'\): expected \[4, 3\] like .*, found \[4, 1\]"):
        own_observation(MORTAL)(data)


def test_entries_of_a_team_of_another_size_are_named() -> None:
    more = TeamSpec((group_spec("wolves", 6), SHEEP), state_dim=12)
    data = observe(more, B)
    with pytest.raises(UserError, match=r"'observation'\): expected \[\*B, n_agents=3, F=5\], found \[4, 6, 5\]; make"):
        team_observation(TEAM, WOLVES)(data)
    with pytest.raises(UserError, match=r"key state: expected \[\*B, S=10\], found \[4, 12\]"):
        global_state(TEAM, WOLVES)(data)
    with pytest.raises(UserError, match=r"n_agents=3, F\], found features of shape \[4, 6, 5\], of 6 agents; make the"):
        own_observation(WOLVES)(data)


def test_observations_without_an_agent_axis_are_named() -> None:
    data = TensorDict({"wolves": {"observation": torch.randn(3, 5)}}, [3])
    with pytest.raises(UserError, match=r"found features of shape \[3, 5\], without an agent axis; expand it over the"):
        own_observation(TeamSpec((group_spec("wolves", 4),))["wolves"])(data)
