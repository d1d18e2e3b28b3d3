"""A check for options that are given and that nothing would read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ctde_kit.errors import UserError
from ctde_kit.recipes.configs.mixers import NoMixer
from ctde_kit.recipes.configs.recipe import RecipeConfig, has_field

_EXCHANGE = "distributed.sync.what=best_critic"


def _for(remedy: str) -> str:
    return f"it is for {remedy}; leave it out, or give that, too"


# Options, each with all below it: whether a configuration that has them reads them, and what to do where it does not.
READ: dict[str, tuple[Callable[[Any], bool], str]] = {
    "replay.alpha": (lambda config: config.replay.prioritized, _for("replay.prioritized=true")),
    "replay.beta": (lambda config: config.replay.prioritized, _for("replay.prioritized=true")),
    "replay.directory": (lambda config: config.replay.stored_on == "disk", _for("replay.stored_on=disk")),
    "logger.project": (lambda config: config.logger.name in ("wandb", "mlflow"), _for("logger=wandb or logger=mlflow")),
    "logger.tracking_uri": (lambda config: config.logger.name == "mlflow", _for("logger=mlflow")),
    "logger.offline": (lambda config: config.logger.name == "wandb", _for("logger=wandb")),
    "critic.network": (
        lambda config: not config.critic.shares_actor,
        "with critic=shared the actor's network gives the values; leave it out, and choose the network with "
        "network@actor and actor.*",
    ),
    "huber_delta": (lambda config: config.value_loss == "huber", _for("value_loss=huber")),
    "hidden_from": (lambda config: config.actor.recurrent, _for("a recurrent network, such as network@actor=gru")),
    "samples_mc_entropy": (lambda config: config.task.continuous is not False, _for("continuous actions")),
    "inference_entropy": (lambda config: config.infer_policies, _for("infer_policies=true")),
    "inference_deviation": (lambda config: config.infer_policies, _for("infer_policies=true")),
    "smoothing_limit": (lambda config: config.smoothing_deviation is not None, _for("smoothing_deviation=0.2")),
    "alpha_lr": (lambda config: not config.fixed_alpha, _for("fixed_alpha=false")),
    "share_alpha": (lambda config: not config.fixed_alpha, _for("fixed_alpha=false")),
    "target_entropy": (lambda config: not config.fixed_alpha, _for("fixed_alpha=false")),
    "target_entropy_weight": (
        lambda config: not config.fixed_alpha and config.target_entropy is None and not config.task.continuous,
        _for("discrete actions, without fixed_alpha and target_entropy"),
    ),
    **{
        f"distributed.sync.{name}": (lambda config: config.distributed.sync.exchanges, _for(_EXCHANGE))
        for name in ("every", "unit", "end_every", "moments", "episodes")
    },
    "team_reward": (
        lambda config: not has_field(type(config), "mixer") or not isinstance(config.mixer, NoMixer),
        _for("a mixer, such as mixer=vdn"),
    ),
}


def check_read(config: RecipeConfig, overrides: Iterable[str]) -> None:
    """Raise ``UserError`` for an option on the command line that this configuration never reads.

    Args:
        config: composed from the command line.
        overrides: of the command line, ``NAME=VALUE``.
    """
    for override in overrides:
        name = override.lstrip("+").partition("=")[0].removeprefix("network@")
        for option, (is_read, remedy) in READ.items():
            if f"{name}.".startswith(f"{option}.") and not is_read(config):
                raise UserError(f"{override}: nothing reads it here; {remedy}")
