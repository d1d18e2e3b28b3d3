"""Loggers beside metrics.csv, through TorchRL's."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctde_kit.errors import UserError
from ctde_kit.recipes.configs.checks import PATH, CheckedConfig, check_choice

if TYPE_CHECKING:
    from ctde_kit.training.reporting import PatientLogger


@dataclass
class LoggerConfig(CheckedConfig):
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
    >>> [type(logger.logger).__name__ for logger in loggers]
    ['TensorboardLogger']
    """

    name: str = "csv"
    project: str = "ctde_kit"
    tracking_uri: str | None = field(default=None, metadata=PATH)
    offline: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("logger", self.name, ("csv", "tensorboard", "wandb", "mlflow"))

    def build(self, directory: Path, run_name: str) -> list[PatientLogger]:
        """The loggers; none of them can end or hold up a run.

        Raises:
            UserError: where the package is not installed, naming the extra.
        """
        if self.name == "csv":
            return []
        if importlib.util.find_spec(self.name) is None:
            raise UserError(f'logger={self.name}: not installed; run pip install "ctde-kit[{self.name}]"')
        # Not before: it loads torch.
        from ctde_kit.training.reporting import PatientLogger

        target = directory / self.name
        if self.name == "mlflow":
            import mlflow  # pyright: ignore[reportMissingImports]  # an extra
            from torchrl.record.loggers.mlflow import MLFlowLogger

            uri = self.tracking_uri or f"sqlite:///{directory.absolute() / 'mlflow.db'}"
            make = partial(MLFlowLogger, exp_name=self.project, tracking_uri=uri)
            return [PatientLogger(make, self.name, end=mlflow.end_run)]
        if self.name == "wandb":
            from torchrl.record.loggers.wandb import WandbLogger

            options: dict[str, Any] = {"project": self.project, "offline": self.offline}
            return [PatientLogger(partial(WandbLogger, exp_name=run_name, log_dir=str(target), **options), self.name)]
        from torchrl.record.loggers.tensorboard import TensorboardLogger

        return [PatientLogger(partial(TensorboardLogger, exp_name=run_name, log_dir=str(target)), self.name)]
