"""The recipe on environments in worker processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ctde_kit.errors import UserError
from ctde_kit.recipes import LbfTask, MAPPOConfig, PettingZooTask
from ctde_kit.training import Parts, load_parts, read_checkpoint, save_checkpoint
from tests.recipes.command_line import composed
from tests.recipes.resuming import advance
from tests.recipes.small import NORMALIZED, small_config

SPREAD = PettingZooTask(
    name="pettingzoo/simple_spread",
    env="mpe2/simple_spread_v3",
    n_envs=6,
    n_workers=2,
    max_steps=7,
    params={"N": 2, "max_cycles": 7},
)
FORAGING = LbfTask(name="lbf/foraging", env_id="Foraging-8x8-2p-2f-coop-v3", n_envs=6, n_workers=2, max_steps=7)
TAG = PettingZooTask(
    name="pettingzoo/simple_tag",
    env="mpe2/simple_tag_v3",
    n_envs=6,
    max_steps=7,
    groups_compete=False,
    params={"max_cycles": 7},
)


def weights(parts: Parts) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in parts.update.losses.parameters()])


@pytest.mark.parametrize("kind", [pytest.param("mlp", marks=pytest.mark.slow), "gru"])
@pytest.mark.parametrize(
    "task", [SPREAD, FORAGING, pytest.param(TAG, marks=pytest.mark.slow)], ids=["spread", "foraging", "tag"]
)
def test_a_checkpoint_resets_the_envs_in_both_runs(task: PettingZooTask | LbfTask, kind: str, tmp_path: Path) -> None:
    check_resumed(small_config(kind, task=task), tmp_path)


@pytest.mark.parametrize("task", [FORAGING, pytest.param(TAG, marks=pytest.mark.slow)], ids=["foraging", "tag"])
def test_a_compiled_run_goes_on_like_one_that_never_stopped(
    task: PettingZooTask | LbfTask, tmp_path: Path, graphs: None
) -> None:
    check_resumed(small_config("gru", compile="on", task=task, **NORMALIZED), tmp_path)


def check_resumed(config: MAPPOConfig, tmp_path: Path) -> None:
    going_on = config.build()
    advance(going_on, 2)
    save_checkpoint(tmp_path / "c.pt", going_on, algorithm="mappo", frames=120)
    before = weights(going_on)
    advance(going_on, 2)

    resumed = config.build()
    load_parts(read_checkpoint(tmp_path / "c.pt", algorithm="mappo"), resumed)
    assert torch.equal(weights(resumed), before)
    advance(resumed, 2)
    assert torch.equal(weights(resumed), weights(going_on))
    assert not torch.equal(weights(resumed), before)
    for parts in (going_on, resumed):
        assert parts.collector.compile == (config.compile == "on")
        parts.collector.shutdown()


def test_the_limit_of_multiwalker_truncates() -> None:
    pytest.importorskip("Box2D")
    sizes = ("task.n_envs=2", "task.n_workers=1", "task.max_steps=4")
    env = composed("mappo", "task=pettingzoo/multiwalker", *sizes).task.build(seed=0, device="cpu")
    rollout = env.rollout(4)
    assert rollout["next", "truncated"][:, -1].all()
    assert not rollout["next", "terminated"].any()
    env.close()


def test_unknown_env_and_argument_are_named() -> None:
    wrong_name = PettingZooTask(name="x", env="mpe2/simple_sprad_v3", n_envs=2)
    with pytest.raises(UserError, match="simple_spread_v3"):
        wrong_name.build(seed=0, device="cpu")
    wrong_argument = PettingZooTask(name="x", env="mpe2/simple_spread_v3", n_envs=2, params={"M": 3})
    with pytest.raises(UserError, match="unknown argument 'M'"):
        wrong_argument.build(seed=0, device="cpu")
