"""Agent-specific global states of any env."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tensordict import TensorDict
from torchrl.envs import EnvBase, TransformedEnv, check_env_specs

from ctde_kit.envs.games import MatrixGameEnv
from ctde_kit.envs.transforms import AgentState, with_agent_states
from ctde_kit.envs.vmas import VmasEnv
from ctde_kit.errors import UserError
from ctde_kit.specs import TeamSpec
from tests.contracts.fakes import group_spec
from tests.envs.toys import Make, ToyEnv, make_and_close

GAME = [[11.0, -30.0, 0.0], [-30.0, 7.0, 0.0], [0.0, 6.0, 5.0]]
ENVS: dict[str, Callable[[], EnvBase]] = {
    "two groups": lambda: VmasEnv("simple_tag", num_envs=3, max_steps=4, seed=0),
    "root state": lambda: MatrixGameEnv(3, GAME),
}


def with_state(env: EnvBase) -> TransformedEnv:
    return TransformedEnv(env, AgentState(TeamSpec.from_env(env)))


@pytest.mark.parametrize("name", ENVS)
def test_specs_hold(name: str) -> None:
    env = with_state(ENVS[name]())
    check_env_specs(env)
    assert TeamSpec.from_env(env) == with_agent_states(TeamSpec.from_env(ENVS[name]()))


@pytest.mark.parametrize("name", ENVS)
def test_a_state_is_the_teams_and_the_agents_own(name: str) -> None:
    env = with_state(ENVS[name]())
    steps = env.rollout(9, break_when_any_done=False)
    groups = list(TeamSpec.from_env(ENVS[name]()))
    for part in (steps, steps["next"]):
        for b in range(3):
            for t in range(9):
                if name == "root state":
                    shared = part["state"][b, t]
                else:
                    shared = torch.cat([o for g in groups for o in part[g.name, "observation"][b, t].unbind()])
                for group in groups:
                    for i in range(group.n_agents):
                        expected = torch.cat([shared, part[group.name, "observation"][b, t, i]])
                        assert torch.equal(part[group.name, "state"][b, t, i], expected)
    done = steps["next", "done"].squeeze(-1)[:, :-1]
    key = (groups[0].name, "state")
    assert done.any()
    assert torch.equal(steps[key][:, 1:][~done], steps["next", *key][:, :-1][~done])


def observed(team: TeamSpec, alive: list[bool]) -> TensorDict:
    data = TensorDict({}, [1])
    for group in team:
        data[group.name, "observation"] = torch.full((1, group.n_agents, group.observation_dim), torch.nan)
        for i in range(group.n_agents):
            data[group.name, "observation"][0, i] = 10.0 * (i + 1) + (group.name == "sheep")
    data["wolves", "mask"] = torch.tensor([alive])
    return data


def test_dead_agents_are_zero_and_those_whose_time_is_up_are_not_dead() -> None:
    wolves = group_spec("wolves", 3, observation_dim=2, mask=True)
    team = TeamSpec((wolves, group_spec("sheep", 2, observation_dim=1)))
    transform = AgentState(team)
    reset = transform._reset(TensorDict({}, [1]), observed(team, [True, False, True]))
    shared = [10.0, 10.0, 0.0, 0.0, 30.0, 30.0, 11.0, 21.0]
    assert reset["wolves", "state"][0].tolist() == [[*shared, 10.0, 10.0], [0.0] * 10, [*shared, 30.0, 30.0]]
    assert reset["sheep", "state"][0].tolist() == [[*shared, 11.0], [*shared, 21.0]]
    # Wolf 0 terminates, wolf 1 was dead before, the time of wolf 2 is up: the env calls all three dead.
    after = observed(team, [False, False, False])
    after["terminated"] = after["done"] = torch.tensor([[False]])
    after["wolves", "terminated"] = torch.tensor([[[True], [False], [False]]])
    after = transform._step(reset, after)
    shared = [0.0, 0.0, 0.0, 0.0, 30.0, 30.0, 11.0, 21.0]
    assert after["wolves", "state"][0].tolist() == [[0.0] * 10, [0.0] * 10, [*shared, 30.0, 30.0]]
    # Where the team terminates, so does everyone.
    ends = observed(team, [False, False, False])
    ends["terminated"] = ends["done"] = torch.tensor([[True]])
    assert not transform._step(reset, ends)["wolves", "state"].any()


make = pytest.fixture(make_and_close)


def test_an_env_where_agents_end(make: Make) -> None:
    env = make(lambda: ToyEnv(ends={"walker_1": (2, "terminated")}, limit=5), n_envs=2)
    steps = with_state(env).rollout(4, break_when_any_done=False)
    assert TeamSpec.from_env(env)["walker"].mask
    alive = steps["walker", "mask"]
    assert alive[:, :2].all()
    assert not alive[:, 2:, 1].any()
    assert torch.equal(steps["walker", "state"].any(-1), alive)
    assert not steps["next", "walker", "state"][:, 1, 1].any()


def test_an_env_that_writes_one_is_left_alone() -> None:
    env = with_state(MatrixGameEnv(3, GAME))
    with pytest.raises(UserError, match=r"\('agents', 'state'\) already; leave the transform out"):
        _ = env.append_transform(AgentState(TeamSpec.from_env(env))).observation_spec
