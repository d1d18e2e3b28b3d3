"""A mixer for the groups that learn."""

from __future__ import annotations

from typing import Protocol

from tensordict.nn import TensorDictModuleBase

from ctde_kit.errors import UserError
from ctde_kit.recipes.configs.mixers import MixerConfig, NoMixer
from ctde_kit.recipes.configs.tasks.task import TaskConfig
from ctde_kit.specs import TeamSpec


class WithMixer(Protocol):
    """A recipe whose values are mixed."""

    task: TaskConfig
    mixer: MixerConfig


def mixer(cfg: WithMixer, learning: TeamSpec, device: str) -> TensorDictModuleBase | None:
    """The mixer of the groups that learn; ``None`` where each agent learns from its own reward.

    Raises:
        UserError: where it would make one team of groups that compete.
    """
    names = [group.name for group in learning]
    if cfg.task.groups_compete and len(names) > 1 and not isinstance(cfg.mixer, NoMixer):
        raise UserError(
            f"mixer: {', '.join(names)} compete in {cfg.task.name}, so no single value serves all; use mixer=none, "
            f"or let one of them learn against another, such as opponents.{names[-1]}=random"
        )
    built = cfg.mixer.build(learning)
    return None if built is None else built.to(device)
