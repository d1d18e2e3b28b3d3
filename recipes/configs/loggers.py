"""Loggers beside metrics.csv, through TorchRL's."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctde_kit.errors import UserError
from ctde_kit.recipes.configs.checks import check_choice


@dataclass
class LoggerConfig:
    """Where metrics go beside metrics.csv, through TorchRL's loggers.

    Args:
        name: csv (nothing more), tensorboard, wandb or mlflow.
        project: the project or experiment name of wandb and mlflow.
        tracking_uri: of mlflow; null for a database in the run directory.
        offline: wandb writes into the run directory alone.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from ctde_kit.recipes import LoggerConfig
    >>> loggers = LoggerConfig("tensorboard").build(Path(tempfile.mkdtemp()), "seed_0")
    >>> [type(logger).__name__ for logger in loggers]
    ['TensorboardLogger']
    """

    name: str = "csv"
    project: str = "ctde_kit"
    tracking_uri: str | None = None
    offline: bool = False

    def __post_init__(self) -> None:
        check_choice("logger", self.name, ("csv", "tensorboard", "wandb", "mlflow"))

    def build(self, directory: Path, run_name: str) -> list[Any]:
        """The loggers; each has ``log_scalar``.

        Raises:
            UserError: where the package is not installed, naming the extra.
        """
        if self.name == "csv":
            return []
        if importlib.util.find_spec(self.name) is None:
            raise UserError(f'logger={self.name}: not installed; run pip install "ctde-kit[{self.name}]"')
        target = directory / self.name
        if self.name == "mlflow":
            from torchrl.record.loggers.mlflow import MLFlowLogger

            uri = self.tracking_uri or f"sqlite:///{directory.absolute() / 'mlflow.db'}"
            return [MLFlowLogger(exp_name=self.project, tracking_uri=uri)]
        if self.name == "wandb":
            from torchrl.record.loggers.wandb import WandbLogger

            options: dict[str, Any] = {"project": self.project, "offline": self.offline}
            return [WandbLogger(exp_name=run_name, log_dir=str(target), **options)]
        from torchrl.record.loggers.tensorboard import TensorboardLogger

        return [TensorboardLogger(exp_name=run_name, log_dir=str(target))]
