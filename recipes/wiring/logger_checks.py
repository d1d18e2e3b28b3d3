"""Whether a logger will take what a run sends, known before the run begins."""

from __future__ import annotations

import importlib
import os
import urllib.error
import urllib.request

from ctde_kit.errors import UserError
from ctde_kit.recipes.configs.loggers import LoggerConfig

SECONDS = 5.0
"""Seconds that a tracking server gets to answer."""


def check_loggers(config: LoggerConfig) -> None:
    """Raise ``UserError`` for wandb without a key, and for an address of mlflow that does not answer within seconds."""
    if config.name == "wandb" and not config.offline:
        _check_wandb()
    if config.name == "mlflow" and (config.tracking_uri or "").startswith(("http://", "https://")):
        _check_answers(str(config.tracking_uri))


def _check_wandb() -> None:
    if os.environ.get("WANDB_MODE", "online") != "online" or os.environ.get("WANDB_API_KEY"):
        return
    try:
        wandb = importlib.import_module("wandb")
    except ImportError:
        return  # the logger itself names the extra
    if not wandb.api.api_key:
        raise UserError(
            "logger=wandb: no API key is found; run `wandb login`, set WANDB_API_KEY, or give logger.offline=true"
        )


def _check_answers(uri: str) -> None:
    try:
        urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=SECONDS).close()
    except urllib.error.HTTPError:
        return  # it answers, if only to say no
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"logger.tracking_uri={uri}: it does not answer within {SECONDS:g} s ({reason}); start the server, or "
            "leave it out for a database in the run directory"
        ) from error
