"""A check for options that are given and that nothing would read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ctde_kit.errors import UserError
from ctde_kit.recipes.configs.mixers import NoMixer
from ctde_kit.recipes.configs.recipe import RecipeConfig, has_field

# By option, or by what all its options begin with, whether a configuration reads it, and what would make it so.
_EXCHANGE = "distributed.sync.what=best_critic"
READ: dict[str, tuple[Callable[[Any], bool], str]] = {  # of a configuration that has the option
    "replay.alpha": (lambda config: config.replay.prioritized, "replay.prioritized=true"),
    "replay.beta": (lambda config: config.replay.prioritized, "replay.prioritized=true"),
    "replay.directory": (lambda config: config.replay.stored_on == "disk", "replay.stored_on=disk"),
    "logger.project": (lambda config: config.logger.name in ("wandb", "mlflow"), "logger=wandb or logger=mlflow"),
    "logger.tracking_uri": (lambda config: config.logger.name == "mlflow", "logger=mlflow"),
    "logger.offline": (lambda config: config.logger.name == "wandb", "logger=wandb"),
    "critic.network": (
        lambda config: not config.critic.shares_actor,
        "critics with a network of their own, such as critic=decentralized",
    ),
    "huber_delta": (lambda config: config.value_loss == "huber", "value_loss=huber"),
    "hidden_from": (lambda config: config.actor.recurrent, "a recurrent network, such as network@actor=gru"),
    "samples_mc_entropy": (lambda config: config.task.continuous is not False, "continuous actions"),
    "inference_entropy": (lambda config: config.infer_policies, "infer_policies=true"),
    "inference_deviation": (lambda config: config.infer_policies, "infer_policies=true"),
    "smoothing_limit": (lambda config: config.smoothing_deviation is not None, "smoothing_deviation=0.2"),
    "alpha_lr": (lambda config: not config.fixed_alpha, "fixed_alpha=false"),
    "share_alpha": (lambda config: not config.fixed_alpha, "fixed_alpha=false"),
    "target_entropy": (lambda config: not config.fixed_alpha, "fixed_alpha=false"),
    "target_entropy_weight": (
        lambda config: not config.fixed_alpha and config.target_entropy is None and not config.task.continuous,
        "discrete actions, without fixed_alpha and target_entropy",
    ),
    **{
        f"distributed.sync.{name}": (lambda config: config.distributed.sync.exchanges, _EXCHANGE)
        for name in ("every", "unit", "end_every", "moments", "episodes")
    },
    "team_reward": (
        lambda config: not has_field(type(config), "mixer") or not isinstance(config.mixer, NoMixer),
        "a mixer, such as mixer=vdn",
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
                raise UserError(
                    f"{override}: nothing reads it here; it is for {remedy}; leave it out, or give that, too"
                )
