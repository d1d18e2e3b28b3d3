"""Matrix games learned by the QMIX recipe, and the joint values that come out."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch

from ctde_kit.keys import GroupKeys
from ctde_kit.objectives.q_values import team_value, write_values
from ctde_kit.recipes import (
    LoggerConfig,
    MatrixTask,
    MLPNetwork,
    NStepReturns,
    PolyakTarget,
    QMIXConfig,
    ReplayConfig,
    TransitionForm,
)
from ctde_kit.training import Parts, evaluate, iterate

TWO_STEP = MatrixTask(
    name="matrix/two_step",
    payoff=[[[0, 0], [0, 0]], [[7, 7], [7, 7]], [[0, 1], [1, 8]]],
    next_state=[[[1, 1], [2, 2]], [[-1, -1], [-1, -1]], [[-1, -1], [-1, -1]]],
)
CLIMBING = MatrixTask(name="matrix/climbing", payoff=[[11, -30, 0], [-30, 7, 0], [0, 6, 5]])


def matrix_config(task: MatrixTask, mixer: Any, **options: Any) -> QMIXConfig:
    """Uniformly random exploration throughout, as in the QMIX paper's two-step game."""
    defaults: dict[str, Any] = {
        "task": task,
        "actor": MLPNetwork(num_cells=[64], activation="relu", agent_id=True),
        "mixer": mixer,
        "replay": ReplayConfig(form=TransitionForm(), capacity=10_000, batch_size=64),
        "returns": NStepReturns(1),
        "target": PolyakTarget(tau=0.05),
        "logger": LoggerConfig(),
        "device": "cpu",
        "total_frames": 6_400,
        "frames_per_batch": 400,
        "updates_per_frame": 0.15,
        "gamma": 0.99,
        "lr": 5e-3,
        "anneal_lr": True,
        "value_loss": "l2",
        "max_grad_norm": 10.0,
        "epsilon_end": 1.0,
    }
    return QMIXConfig(**{**defaults, **options})


def train(config: QMIXConfig) -> Parts:
    parts = config.build()
    for _ in iterate(parts):
        pass
    return parts


def greedy_return(parts: Parts) -> float:
    return evaluate(parts.collector.env, parts.policy, ["agents"], episodes=16, seed=0).metrics()["return_mean"]


@torch.no_grad()
def joint_values(parts: Parts, state: int = 0) -> torch.Tensor:
    """The team's value of every joint action in one state of the game, ``[n_actions, n_actions]``."""
    keys, loss = GroupKeys(), parts.update.losses["team"]
    env = parts.collector.env.base_env
    joint = torch.tensor(list(product(range(env.n_actions), repeat=2)))
    data = env.reset()[:1].expand(len(joint)).clone()
    one_hot = torch.nn.functional.one_hot(torch.tensor(state), env.n_states).float()
    data["state"], data[keys.observation] = one_hot.expand(len(joint), -1), one_hot.expand(len(joint), 2, -1)
    actor = loss.actors["agents"]
    values = actor.agent_network(data.copy())[keys.action_value]
    write_values(actor, data, values, joint)
    table = team_value(loss.mixer, data, "chosen_action_value")
    return table.reshape(env.n_actions, env.n_actions)
