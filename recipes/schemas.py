"""The typed schemas under hydra's configuration files."""

from __future__ import annotations

from typing import Any

from ctde_kit.recipes.critics import ValueCriticConfig
from ctde_kit.recipes.loggers import LoggerConfig
from ctde_kit.recipes.mappo import MAPPOConfig
from ctde_kit.recipes.matrix_task import MatrixTask
from ctde_kit.recipes.networks import GRUNetwork, MLPNetwork
from ctde_kit.recipes.tasks import LbfTask, PettingZooTask, RecallTask, VmasTask

SCHEMAS: dict[tuple[str | None, str], Any] = {
    (None, "mappo_schema"): MAPPOConfig,
    ("schema/task", "vmas"): VmasTask,
    ("schema/task", "pettingzoo"): PettingZooTask,
    ("schema/task", "lbf"): LbfTask,
    ("schema/task", "recall"): RecallTask,
    ("schema/task", "matrix"): MatrixTask,
    ("schema/network", "mlp"): MLPNetwork,
    ("schema/network", "gru"): GRUNetwork,
    ("schema/critic", "value"): ValueCriticConfig,
    ("schema/logger", "logger"): LoggerConfig,
}
