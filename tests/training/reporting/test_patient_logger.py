"""Loggers that fail, or do not answer, neither end nor hold up a run."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ctde_kit.recipes.commands.running import start
from ctde_kit.recipes.configs.loggers import LoggerConfig
from ctde_kit.training.reporting import PatientLogger
from tests.recipes.small import small_config


class Kept:
    def __init__(self) -> None:
        self.values: list[tuple[str, float, int | None]] = []
        self.thread = threading.current_thread()

    def log_scalar(self, name: str, value: float, step: int | None = None) -> None:
        assert threading.current_thread() is self.thread
        self.values.append((name, value, step))


class Locked(Kept):
    """A database that is locked for its first two values."""

    def log_scalar(self, name: str, value: float, step: int | None = None) -> None:
        super().log_scalar(name, value, step)
        if len(self.values) <= 2:
            raise OSError("database is\nlocked")


class Gone(Kept):
    def log_scalar(self, name: str, value: float, step: int | None = None) -> None:
        time.sleep(60)


def test_values_arrive_in_order_in_the_thread_that_made_the_logger() -> None:
    ended = []
    logger = PatientLogger(Kept, "kept", end=lambda: ended.append(threading.current_thread()))
    for step in range(1000):
        logger.log_scalar("loss", step / 2, step=step)
    logger.close()
    assert logger.logger.values == [("loss", step / 2, step) for step in range(1000)]
    assert ended == [logger.logger.thread] != [threading.main_thread()]


def test_an_error_is_one_warning_and_later_values_arrive(caplog: pytest.LogCaptureFixture) -> None:
    logger = PatientLogger(Locked, "mlflow")
    for step in range(5):
        logger.log_scalar("loss", 1.0, step=step)
    logger.close()
    assert [step for _, _, step in logger.logger.values] == [0, 1, 2, 3, 4]
    assert [record.getMessage() for record in caplog.records] == [
        "logger=mlflow lost values (OSError: database is locked); the run goes on, and metrics.csv has them all"
    ]


def test_a_server_that_is_gone_holds_nothing_up(caplog: pytest.LogCaptureFixture) -> None:
    begin = time.monotonic()
    logger = PatientLogger(Gone, "mlflow")
    for step in range(1000):
        logger.log_scalar("loss", 1.0, step=step)
    logger.close(patience=0.2)
    assert time.monotonic() - begin < 5
    assert "logger=mlflow lost values (it does not answer)" in caplog.text


def test_what_making_it_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        PatientLogger(lambda: 1 // 0, "broken")


@pytest.mark.parametrize("plain", [False, True], ids=["patient", "a logger of one's own"])
def test_a_run_goes_on_and_metrics_are_whole(
    plain: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, no_curves: None
) -> None:
    def build(self: LoggerConfig, directory: Path, run_name: str) -> list[Any]:
        if not plain:
            return [PatientLogger(Locked, "mlflow")]
        logger: Any = Locked()
        logger.close = lambda: None
        return [logger]

    monkeypatch.setattr(LoggerConfig, "build", build)
    with caplog.at_level(logging.WARNING, "ctde_kit"):
        assert start(small_config(), tmp_path / "run")["frames"] == 240
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 5
    locked = "OSError('database is\\nlocked')"
    assert [record.getMessage() for record in caplog.records] == (
        [f"Locked: no row at {frames} frames ({locked}); metrics.csv has it" for frames in (60, 120)]
        if plain
        else ["logger=mlflow lost values (OSError: database is locked); the run goes on, and metrics.csv has them all"]
    )
