"""What goes wrong in worker processes and in the user's own code, as the command line says it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from mpe2.simple_spread import simple_spread

from tests.recipes.command_line import assert_one_line, call_here

SMALL = (
    "task=pettingzoo/simple_spread",
    "task.n_envs=2",
    "task.n_workers=1",
    "task.worker_timeout=2",
    "device=cpu",
    "minibatch_frames=20",
)


def explode() -> None:
    raise ArithmeticError("two\nlines")


def hang() -> None:
    while True:
        pass


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (explode, "worker 0 (envs 0-1) failed in step of env 0: ArithmeticError: two lines ("),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "worker 0 (envs 0-1) died: killed by SIGKILL"),
        pytest.param(
            hang,
            "has not come back for 8 s from step of env 0; mend the environment, or give a larger task.worker_timeo",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["raises", "dies", "hangs"],
)
def test_one_line_and_where_the_traceback_is(what: Any, message: str, tmp_path: Path) -> None:
    step = simple_spread.raw_env.step
    parent = os.getpid()

    def failing(self: Any, action: Any) -> Any:
        if os.getpid() != parent:
            what()
        return step(self, action)

    with mock.patch.object(simple_spread.raw_env, "step", failing):
        # Long enough for a busy machine to make the environments.
        patience = "task.worker_timeout=8" if what is hang else "task.worker_timeout=60"
        result = call_here(
            tmp_path, "mappo", *SMALL, patience, "frames_per_batch=20", "total_frames=20", "hydra.run.dir=run"
        )
    assert_one_line(result, message, program="ctde-mappo")
    trace = tmp_path / "run" / "worker_traceback.txt"
    assert trace.exists() == (what is explode)
    if trace.exists():
        assert f"); its traceback is in {trace}; mend it, and start it again: there was no checkpoint" in result.stderr
        assert 'raise ArithmeticError("two' in trace.read_text()
    # The same command works again.
    again = call_here(
        tmp_path,
        "mappo",
        *SMALL,
        "frames_per_batch=20",
        "total_frames=20",
        "evaluation.episodes=2",
        "hydra.run.dir=run",
    )
    assert again.returncode == 0, again.stderr
    assert not trace.exists()


OWN = """
import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

class Gather(ParallelEnv):
    metadata = {"name": "gather"}
    possible_agents = ["cat_0", "cat_1"]

    def observation_space(self, agent):
        return spaces.Box(0, 9, (3,), np.float32)

    def action_space(self, agent):
        return spaces.Discrete(2)

    def observe(self):
        return {agent: np.ones(3, np.float32) for agent in self.agents}

    def reset(self, seed=None, options=None):
        self.agents = [*self.possible_agents]
        return self.observe(), {agent: {} for agent in self.agents}

    def step(self, actions):
        no = dict.fromkeys(self.agents, False)
        rewards = {agent: float(actions["cat_0"]) for agent in self.agents}
        return self.observe(), rewards, no, no, {agent: {} for agent in self.agents}
"""


@pytest.mark.parametrize("program", ["describe", "doctor"])
@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (
            ("no = dict", "raise KeyError(5); no = dict"),
            "in step of env 0: KeyError: 5 ({file}, line 24); mend the env",
        ),
        (("np.ones(3,", "np.ones(4,"), "observation of 'cat_0': expected shape (3,), found (4,); mend the environment"),
        (
            ("float(actions", "np.ones(1) * (actions"),
            "reward of 'cat_0': expected a number, found an array of shape (1,",
        ),
    ],
    ids=["step raises", "observation", "reward"],
)
def test_tools_for_a_task_say_it_in_one_line(
    program: str, mistake: tuple[str, str], message: str, tmp_path: Path
) -> None:
    file = tmp_path / "gather.py"
    file.write_text(OWN.replace(*mistake))
    result = call_here(tmp_path, program, f"task=pettingzoo/{file}:Gather", "task.max_steps=5", "task.n_workers=1")
    assert_one_line(result, message.format(file=file), program=f"ctde {program}")


SCENARIO = """
import torch
from vmas.simulator.core import Agent, World
from vmas.simulator.scenario import BaseScenario


class Scenario(BaseScenario):
    def make_world(self, batch_dim, device, **kwargs):
        world = World(batch_dim, device)
        world.add_agent(Agent("agent_0"))
        self.steps = 0
        return world

    def reset_world_at(self, env_index=None):
        pass

    def observation(self, agent):
        return torch.cat([agent.state.pos, agent.state.vel], -1)

    def reward(self, agent):
        return broken(agent.state.pos)


def broken(position):
    raise ValueError("no reward\\nhere")
"""


@pytest.mark.parametrize("program", ["mappo", "describe", "doctor"])
def test_what_an_own_scenario_raises(program: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(SCENARIO)
    arguments = [f"task=vmas/{file}:Scenario", "task.n_envs=2", "task.max_steps=5"]
    if program == "mappo":
        arguments += ["compile=off", "frames_per_batch=10", "minibatch_frames=10", "hydra.run.dir=run"]
    result = call_here(tmp_path, program, *arguments)
    line = SCENARIO.splitlines().index('    raise ValueError("no reward\\nhere")') + 1
    message = f"{file}, line {line}, in broken: ValueError: no reward here; "
    assert_one_line(result, message, program=f"ctde-{program}" if program == "mappo" else f"ctde {program}")
    if program == "mappo":
        trace = tmp_path / "run" / "own_code_traceback.txt"
        assert f"its traceback is in {trace}" in result.stderr
        assert "return broken(agent.state.pos)" in trace.read_text()


@pytest.mark.parametrize(
    ("raising", "message"),
    [
        ('raise TimeoutError("no licence")', "in broken: TimeoutError: no licence; its traceback is in "),
        ("next(iter([]))", "in broken: "),
        ("raise SystemExit(3)", "in broken: SystemExit: 3; its traceback is in "),
    ],
    ids=["an error of the system", "the end of an iteration", "an exit"],
)
def test_whatever_an_own_scenario_raises_is_its_own_line(raising: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(SCENARIO.replace('raise ValueError("no reward\\nhere")', raising))
    small = ("task.n_envs=2", "task.max_steps=5", "compile=off", "frames_per_batch=10", "minibatch_frames=10")
    result = call_here(tmp_path, "mappo", f"task=vmas/{file}:Scenario", *small, "hydra.run.dir=run")
    line = SCENARIO.splitlines().index('    raise ValueError("no reward\\nhere")') + 1
    assert_one_line(result, f"{file}, line {line}, {message}", program="ctde-mappo")
    assert str(tmp_path / "run" / "own_code_traceback.txt") in result.stderr
