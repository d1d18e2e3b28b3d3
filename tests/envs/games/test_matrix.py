"""Matrix games."""

from __future__ import annotations

import pytest
import torch
from torchrl.envs import check_env_specs

from ctde_kit.envs.games import MatrixGameEnv
from ctde_kit.errors import UserError
from ctde_kit.specs import TeamSpec

CLIMBING = [[11, -30, 0], [-30, 7, 0], [0, 6, 5]]
TWO_STEP = [[[0, 0], [0, 0]], [[7, 7], [7, 7]], [[0, 1], [1, 8]]]
FOLLOWS = [[[1, 1], [2, 2]], [[-1, -1], [-1, -1]], [[-1, -1], [-1, -1]]]
THREE_AGENTS = torch.arange(64.0).reshape(4, 4, 4)


def play(env: MatrixGameEnv, carrier, *actions: int):
    carrier["agents", "action"] = torch.tensor(actions).expand(*env.batch_size, -1)
    return env.step_and_maybe_reset(carrier)


@pytest.mark.parametrize(("payoff", "follows"), [(CLIMBING, None), (TWO_STEP, FOLLOWS), (THREE_AGENTS, None)])
def test_specs_hold(payoff, follows) -> None:
    check_env_specs(MatrixGameEnv(5, payoff, follows))


def test_sizes_are_read_off_the_table() -> None:
    group = TeamSpec.from_env(MatrixGameEnv(5, THREE_AGENTS))["agents"]
    assert (group.n_agents, group.action.sizes) == (3, (4,))
    team = TeamSpec.from_env(MatrixGameEnv(5, TWO_STEP, FOLLOWS))
    assert (team.state_dim, team["agents"].observation_dim, team["agents"].n_agents) == (3, 3, 2)


def test_a_game_of_one_step_pays_its_table_and_ends() -> None:
    env = MatrixGameEnv(9, CLIMBING)
    carrier = env.reset()
    carrier["agents", "action"] = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    step = env.step(carrier)["next"]
    assert step["agents", "reward"].shape == (9, 2, 1)
    assert torch.equal(step["agents", "reward"][..., 0], torch.tensor(CLIMBING).float().reshape(9, 1).expand(9, 2))
    assert step["terminated"].all()
    assert not step["truncated"].any()
    assert not step["state"].any()


def test_axes_are_agents_in_order() -> None:
    env = MatrixGameEnv(2, THREE_AGENTS)
    step, _ = play(env, env.reset(), 1, 2, 3)
    assert (step["next", "agents", "reward"] == 1 * 16 + 2 * 4 + 3).all()


def test_the_first_choice_picks_the_second_table() -> None:
    env = MatrixGameEnv(4, TWO_STEP, FOLLOWS)
    for first, state, second, reward in [((0, 1), 1, (1, 1), 7), ((1, 0), 2, (1, 1), 8), ((1, 1), 2, (0, 1), 1)]:
        carrier = env.reset()
        assert (carrier["state"].argmax(-1) == 0).all()
        step, carrier = play(env, carrier, *first)
        assert not step["next", "done"].any()
        assert not step["next", "agents", "reward"].any()
        assert (carrier["state"].argmax(-1) == state).all()
        assert (carrier["agents", "observation"].argmax(-1) == state).all()
        step, _ = play(env, carrier, *second)
        assert step["next", "terminated"].all()
        assert (step["next", "agents", "reward"] == reward).all()


def test_games_go_on_by_themselves_and_a_partial_reset_touches_only_what_is_done() -> None:
    env = MatrixGameEnv(4, TWO_STEP, FOLLOWS)
    _, carrier = play(env, env.reset(), 1, 0)
    carrier["_reset"] = torch.tensor([[True], [False], [False], [True]])
    assert env.reset(carrier)["state"].argmax(-1).tolist() == [0, 2, 2, 0]
    assert env.stage.tolist() == [0, 2, 2, 0]


def test_state_is_restored() -> None:
    env = MatrixGameEnv(3, TWO_STEP, FOLLOWS)
    play(env, env.reset(), 1, 0)
    saved, stage = env.state_dict(), env.stage.clone()
    env.reset()
    assert not torch.equal(env.stage, stage)
    env.load_state_dict(saved)
    assert torch.equal(env.stage, stage)


@pytest.mark.parametrize(
    ("payoff", "follows", "message"),
    [
        ([[1, 2], [3]], None, "sides of one length"),
        ([[1, 2, 3], [4, 5, 6]], None, r"equally many actions for each agent, found \[2, 3\]"),
        (TWO_STEP, FOLLOWS[:2], "payoff's shape"),
        (TWO_STEP, [[[1, 1], [3, 2]], *FOLLOWS[1:]], "a later one of the 3 states, found 3"),
        (TWO_STEP, [[[1, 1], [0, 2]], *FOLLOWS[1:]], "found 0"),
    ],
)
def test_impossible_tables_are_named(payoff, follows, message: str) -> None:
    with pytest.raises(UserError, match=message):
        MatrixGameEnv(2, payoff, follows)
