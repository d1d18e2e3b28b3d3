"""Loggers beside metrics.csv, through TorchRL's."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctde_kit.errors import UserError


@dataclass
class LoggerConfig:
    """Where metrics go beside metrics.csv.

    Args:
        name: csv (nothing more), tensorboard, wandb or mlflow.
        project: the project or experiment name of wandb and mlflow.
        tracking_uri: of mlflow; null for a folder in the run directory.
        offline: wandb writes into the run directory alone.
    """

    name: str = "csv"
    project: str = "ctde_kit"
    tracking_uri: str | None = None
    offline: bool = False
    _target_: str = "ctde_kit.recipes.loggers.LoggerConfig"

    def build(self, directory: Path, run_name: str) -> list[Any]:
        """The loggers; each has ``log_scalar``.

        Raises:
            UserError: where the package is not installed, naming the extra.
        """
        if self.name == "csv":
            return []
        if importlib.util.find_spec(self.name) is None:
            raise UserError(f'logger={self.name}: not installed; run pip install "ctde-kit[{self.name}]"')
        from torchrl.record.loggers import get_logger

        kind: Any = self.name
        options: dict[str, Any] = {}
        if self.name == "wandb":
            options["wandb_kwargs"] = {"project": self.project, "offline": self.offline}
        if self.name == "mlflow":
            uri = self.tracking_uri or (directory / "mlflow").absolute().as_uri()
            options["mlflow_kwargs"] = {"tracking_uri": uri}
        return [
            get_logger(
                kind, logger_name=str(directory / self.name), experiment_name=self._experiment(run_name), **options
            )
        ]

    def _experiment(self, run_name: str) -> str:
        return self.project if self.name == "mlflow" else run_name
