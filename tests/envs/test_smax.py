"""SMAX as a batched environment; skipped where jaxmarl is missing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torchrl.envs.utils import check_env_specs

from ctde_kit.errors import UserError
from ctde_kit.recipes import MAPPOConfig, QMIXConfig, SmaxTask, iterate
from ctde_kit.specs import TeamSpec

pytest.importorskip("jaxmarl", reason='SMAX needs jaxmarl: pip install "ctde-kit[smax]"')
from ctde_kit.envs.smax import SmaxEnv

N_ENVS, N_AGENTS = 5, 3


@pytest.fixture(scope="module")
def env() -> SmaxEnv:
    return SmaxEnv(N_ENVS, "3m", max_steps=12, seed=0)


def equal(one: Any, other: Any) -> bool:
    return all(torch.equal(one[key], other[key]) for key in one.keys(True, True))


def act(env: SmaxEnv, data: Any, action: torch.Tensor) -> Any:
    return env.step(data.set(("agents", "action"), action))["next"]


def fight(env: SmaxEnv, data: Any) -> torch.Tensor:
    """Shoot whom one can, else walk east, where the enemies are."""
    mask = data["agents", "action_mask"]
    east = torch.where(mask[..., 1], 1, 4)
    return torch.where(mask[..., 5:].any(-1), 5 + mask[..., 5:].int().argmax(-1), east)


def test_specs_and_sizes(env: SmaxEnv) -> None:
    check_env_specs(env, break_when_any_done="both")
    team = TeamSpec.from_env(env)
    group = team["agents"]
    assert (group.n_agents, group.action.sizes, group.action_mask, group.mask) == (N_AGENTS, (8,), True, False)
    assert env.group_map == {"agents": ["ally_0", "ally_1", "ally_2"]}
    assert team.state_dim == 72
    assert env.reset()["agents", "observation"].shape == (N_ENVS, N_AGENTS, group.observation_dim)


def test_a_limit_truncates_and_a_victory_terminates() -> None:
    env = SmaxEnv(20, "3m", max_steps=4, seed=0)
    data = env.reset()
    for step in range(1, 5):
        data = act(env, data, torch.full((20, N_AGENTS), 4))
        assert data["truncated"].all() if step == 4 else not data["truncated"].any()
        assert not data["terminated"].any()
    env = SmaxEnv(20, "3m", seed=1, enemy_shoots=False)
    data, won, ended = env.reset(), torch.zeros(20), torch.zeros(20, dtype=torch.bool)
    for _ in range(60):
        data = act(env, data, fight(env, data))
        going = ~ended
        won += data["agents", "info", "won"][:, 0, 0] * going
        ended |= data["terminated"].squeeze(-1)
        assert not data["truncated"].any()
    assert ended.all()
    assert won.eq(1).all()


def test_a_fallen_ally_stops_and_the_team_goes_on(env: SmaxEnv) -> None:
    data = env.reset()
    seen = False
    for _ in range(12):
        data = act(env, data, fight(env, data))
        fallen = ~data["agents", "observation"].bool().any(-1) & ~data["done"]
        masks = data["agents", "action_mask"]
        assert masks.any(-1).all()
        if fallen.any():
            seen = True
            assert masks[fallen].sum(-1).eq(1).all()
            assert masks[fallen][:, 4].all()
    assert seen


def test_a_partial_reset_leaves_the_others(env: SmaxEnv) -> None:
    data = env.reset()
    for _ in range(3):
        data = act(env, data, fight(env, data))
    rows = torch.tensor([True, False, False, True, False])
    after = env.reset(data.clone().set("_reset", rows.unsqueeze(-1)))
    for key in (("agents", "observation"), ("agents", "action_mask"), "state"):
        assert torch.equal(after[key][~rows], data[key][~rows])
        assert not torch.equal(after["state"][rows], data["state"][rows])
    assert env.elapsed.squeeze(-1).tolist() == [0, 3, 3, 0, 3]


def test_a_saved_env_goes_on_bit_for_bit(env: SmaxEnv) -> None:
    data = env.reset()
    data = act(env, data, fight(env, data))
    state = env.state_dict()
    action = fight(env, data)
    first = [act(env, data.clone(), action) for _ in range(4)]
    other = SmaxEnv(N_ENVS, "3m", max_steps=12, seed=99)
    other.load_state_dict(state)
    assert all(equal(one, act(other, data.clone(), action)) for one in first)
    assert equal(env.reset(), other.reset())


def test_a_seed_gives_its_battles() -> None:
    one, other, third = (SmaxEnv(3, "3m", seed=seed).reset()["state"] for seed in (5, 5, 6))
    assert torch.equal(one, other)
    assert not torch.equal(one, third)


def test_unknown_maps_are_refused() -> None:
    with pytest.raises(UserError, match=r"map_name='3mm': SMAX has no such map; did you mean .*3m"):
        SmaxEnv(2, "3mm")


@pytest.mark.parametrize(
    ("name", "value"), [("num_allies", 7), ("smacv2_position_generation", True), ("scenario", "3m")]
)
def test_arguments_that_the_map_overrides_are_refused(name: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"{name}={value!r}: SMAX takes this from the map; leave it out"):
        SmaxEnv(2, "3m", **{name: value})


def test_continuous_actions_are_refused() -> None:
    with pytest.raises(UserError, match=r"action_type='continuous': expected 'discrete'"):
        SmaxEnv(2, "3m", action_type="continuous")


@pytest.mark.usefixtures("float64")
def test_specs_are_of_jaxs_numbers() -> None:
    specs = SmaxEnv(2, "3m").observation_spec
    assert {specs["state"].dtype, specs["agents", "observation"].dtype} == {torch.float32}


@pytest.mark.parametrize(
    "recipe", [lambda **options: MAPPOConfig(minibatch_frames=24, **options), QMIXConfig], ids=["mappo", "qmix"]
)
def test_recipes_train_on_it(recipe: Any) -> None:
    config = recipe(task=SmaxTask(n_envs=4, max_steps=6), frames_per_batch=48, total_frames=48, compile="off")
    assert len(list(iterate(config.build()))) == 1
