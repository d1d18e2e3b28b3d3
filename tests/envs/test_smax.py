"""SMAX as a batched environment; skipped where jaxmarl is missing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torchrl.envs.utils import check_env_specs

from ctde_kit.collectors import RolloutCollector
from ctde_kit.errors import UserError
from ctde_kit.modules import TeamPolicy
from ctde_kit.recipes import MAPPOConfig, QMIXConfig, SmaxTask, iterate
from ctde_kit.recipes.wiring.transforms import with_transforms
from ctde_kit.specs import TeamSpec
from tests.contracts.fakes import make_actor

pytest.importorskip("jaxmarl", reason='SMAX needs jaxmarl: pip install "ctde-kit[smax]"')
from ctde_kit.envs.smax import SmaxEnv

N_ENVS, N_AGENTS = 5, 3


@pytest.fixture(scope="module")
def env() -> SmaxEnv:
    return SmaxEnv(N_ENVS, "3m", max_steps=12, seed=0)


def equal(one: Any, other: Any) -> bool:
    return all(torch.equal(one[key], other[key]) for key in one.keys(True, True))


def equal_rows(one: Any, other: Any, rows: torch.Tensor) -> bool:
    """Whether the entries that both have are bit-equal in ``rows``."""
    keys = set(one.keys(True, True)) & set(other.keys(True, True))
    assert {"state", "done", ("agents", "observation"), ("agents", "action_mask")} <= keys
    return all(torch.equal(one[key][rows], other[key][rows]) for key in keys)


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


def test_a_step_on_is_a_step_and_a_reset_where_it_ended() -> None:
    env, other = (SmaxEnv(N_ENVS, "3m", max_steps=9, seed=3) for _ in range(2))
    data = env.reset()
    assert equal(data, other.reset())
    resets = 0
    for _ in range(40):
        action = fight(env, data)
        if other.elapsed.eq(0).all():
            # Battles that begin apart also end apart.
            other.elapsed[0], env.elapsed[0] = 4, 4
        stepped = act(env, data.clone(), action)
        other.begin_step({("agents", "action"): action})
        other.finish_step()
        now, last, ended = other.outcome.now, other.outcome.last, other.outcome.ended
        assert torch.equal(ended, stepped["done"])
        rows = ended.squeeze(-1)
        assert equal_rows(last, stepped, rows)
        assert equal_rows(now, stepped, ~rows)
        data = env.step_mdp(data.set("next", stepped))
        if ended.any():
            data = env.reset(data.set("_reset", ended))
            resets += int(0 < rows.sum() < N_ENVS)
        assert equal_rows(now, data, rows)
        assert torch.equal(env.elapsed, other.elapsed)
    assert resets > 3
    other.obey_masks()
    chosen = other.full_action_spec["agents", "action"].rand()
    assert data["agents", "action_mask"].gather(-1, chosen.unsqueeze(-1)).all()
    one, two = env.state_dict()["battles"], other.state_dict()["battles"]
    assert all(torch.equal(one[name], two[name]) for name in one)


def collector(*, compile: bool, recurrent: bool = False) -> RolloutCollector:
    env = SmaxEnv(N_ENVS, "3m", max_steps=7, seed=3)
    team = TeamSpec.from_env(env)
    torch.manual_seed(3)
    policy = TeamPolicy({group.name: make_actor(group, recurrent) for group in team.groups})
    return RolloutCollector(with_transforms(env, team, policy), policy, frames_per_batch=N_ENVS * 6, compile=compile)


@pytest.mark.parametrize("recurrent", [False, True])
def test_compiled_rollouts_are_the_eager_ones(recurrent: bool, graphs: None) -> None:
    both = [collector(compile=compile, recurrent=recurrent) for compile in (True, False)]
    batches = []
    for one in both:
        torch.manual_seed(5)
        batches.append(torch.cat([one.rollout() for _ in range(3)], 1))
    assert both[0].compile
    assert batches[1]["next", "done"].any()
    assert set(batches[0].keys(True, True)) == set(batches[1].keys(True, True))
    for key, value in batches[1].items(True, True):
        torch.testing.assert_close(batches[0][key], value, rtol=1e-5, atol=1e-5, msg=str(key))


def test_a_step_that_was_begun_is_no_part_of_what_follows(env: SmaxEnv) -> None:
    data = env.reset()
    state, action = env.state_dict(), fight(env, data)
    expected = act(env, data.clone(), action)
    env.load_state_dict(state)
    env.begin_step({("agents", "action"): torch.full((N_ENVS, N_AGENTS), 4)})
    assert equal(act(env, data.clone(), action), expected)


def test_a_seed_set_in_the_middle_of_a_step_is_kept(env: SmaxEnv) -> None:
    env.reset()
    env.begin_step({("agents", "action"): torch.full((N_ENVS, N_AGENTS), 4)})
    env.set_seed(77)
    first = env.reset()
    env.set_seed(77)
    assert equal(env.reset(), first)
    with pytest.raises(AssertionError, match="begin_step comes before finish_step"):
        env.finish_step()


def test_devices_out_of_reach_are_refused() -> None:
    with pytest.raises(UserError, match="device: expected cpu, where this JAX computes, found cuda:0"):
        SmaxEnv(2, "3m", device="cuda:0")


def test_an_answering_env_does_not_run(env: SmaxEnv) -> None:
    root = env.reset()
    step = root.clone().update(env.full_reward_spec.zero())
    step["state"] += 7
    state = env.state_dict()["battles"]
    with env.answering(step, root):
        assert torch.equal(act(env, root.clone(), fight(env, root))["state"], step["state"])
        assert equal(env.reset(), root)
    assert all(torch.equal(value, state[name]) for name, value in env.state_dict()["battles"].items())
