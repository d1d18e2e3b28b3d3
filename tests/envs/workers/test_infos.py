"""What environments report in their infos: kept for evaluations where it is asked for by name."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from pettingzoo import ParallelEnv
from torchrl.envs.utils import check_env_specs

from ctde_kit.envs.workers import WorkerError, worker_env
from ctde_kit.modules import RandomActor, TeamPolicy
from ctde_kit.recipes import PettingZooTask
from ctde_kit.specs import TeamSpec
from ctde_kit.training import evaluate

pytestmark = pytest.mark.timeout(60)
LENGTH = 3
MINE = """
from tests.envs.workers.test_infos import Reporting

make = Reporting
"""


class Reporting(ParallelEnv[Any, Any, Any]):
    """Agent k reports ``place`` k + 10 t at step t, and in the third and last step ``success``, where k is odd."""

    metadata: dict[str, Any] = {"name": "reporting"}  # noqa: RUF012

    def __init__(self, success: Any = True) -> None:
        self.possible_agents = ["a_0", "a_1"]
        self._success = success

    def observation_space(self, agent: Any) -> spaces.Space[Any]:
        return spaces.Box(-1, 1, (3,), np.float32)

    def action_space(self, agent: Any) -> spaces.Space[Any]:
        return spaces.Discrete(2)

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.agents, self._t = [*self.possible_agents], 0
        return self._observations(), {agent: {"place": k, "color": "red"} for k, agent in enumerate(self.agents)}

    def step(self, actions: dict[Any, Any]) -> Any:
        self._t += 1
        over = self._t == LENGTH
        infos: dict[Any, dict[str, Any]] = {
            agent: {"place": np.float64(k + 10 * self._t), "color": "red"} for k, agent in enumerate(self.agents)
        }
        if over:
            infos["a_1"]["success"] = self._success
        ended = dict.fromkeys(self.agents, over)
        observations, rewards = self._observations(), dict.fromkeys(self.agents, 0.0)
        if over:
            self.agents = []
        return observations, rewards, ended, dict.fromkeys(ended, False), infos

    def _observations(self) -> dict[Any, Any]:
        return {agent: np.zeros(3, np.float32) for agent in self.agents}


def test_infos_that_are_named_are_numbers_of_each_agent() -> None:
    env = worker_env(Reporting, n_envs=2, n_workers=1, infos=["place", "success"])
    check_env_specs(env)
    data = env.rollout(LENGTH)
    assert data["next", "a", "info", "place"].shape == (2, LENGTH, 2, 1)
    expected = torch.tensor([[10.0, 11.0], [20.0, 21.0], [30.0, 31.0]])
    assert torch.equal(data["next", "a", "info", "place"][1].squeeze(-1), expected)
    assert torch.equal(data["a", "info", "place"][1, 0].squeeze(-1), torch.tensor([0.0, 1.0]))
    assert torch.equal(data["next", "a", "info", "success"][0, :, 1, 0], torch.tensor([0.0, 0.0, 1.0]))
    assert not data["next", "a", "info", "success"][:, :, 0].any()
    assert env.reset()["a", "info", "success"].eq(0).all(), "left over from the episode before"
    env.close()


def test_evaluations_keep_their_sums_and_last_values() -> None:
    env = worker_env(Reporting, n_envs=2, n_workers=1, infos=["place", "success"])
    policy = TeamPolicy({"a": RandomActor(TeamSpec.from_env(env)["a"])})
    rows = evaluate(env, policy, ["a"], episodes=4, seed=0).records()
    assert len(rows) == 4
    for row in rows:
        assert (row["a/info/place_sum"], row["a/info/place_last"]) == (61.5, 30.5)
        assert (row["a/info/success_sum"], row["a/info/success_last"]) == (0.5, 0.5)
    env.close()


def test_an_info_that_is_no_number_is_an_error() -> None:
    env = worker_env(Reporting, n_envs=1, n_workers=1, infos=["color"])
    with pytest.raises(WorkerError, match="infos: 'color' of 'a_0': expected one number, found 'red'"):
        env.reset()
    env.close()
    env = worker_env(partial(Reporting, success=[1, 2]), n_envs=1, n_workers=1, infos=["success"])
    with pytest.raises(WorkerError, match=r"'success' of 'a_1': expected one number, found \[1, 2\]"):
        env.rollout(LENGTH)
    env.close()


def test_one_warning_names_what_no_environment_reports(caplog: pytest.LogCaptureFixture) -> None:
    env = worker_env(Reporting, n_envs=2, n_workers=1, infos=["sucess", "success"])
    with caplog.at_level(logging.WARNING, "ctde_kit"):
        env.rollout(LENGTH - 1)
        env.reset()
        assert not caplog.messages, "warned before an episode was over"
        env.reset()
        env.rollout(LENGTH)
        env.reset()
    assert caplog.messages == ["infos: the environment has reported no sucess in an episode, and 0 is kept"]
    env.close()


def test_a_task_reports_them_in_evaluations_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    task = PettingZooTask(env=f"{tmp_path / 'mine.py'}:make", n_envs=2, n_workers=1, infos=["success"])
    training, evaluation = task.build(seed=0, device="cpu"), task.build_evaluation(seed=0, device="cpu", episodes=2)
    assert ("a", "info", "success") in evaluation.reset().keys(True)
    assert "info" not in training.reset()["a"].keys()  # noqa: SIM118
    training.close()
    evaluation.close()
