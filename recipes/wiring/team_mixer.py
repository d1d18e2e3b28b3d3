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
    if not isinstance(cfg.mixer, NoMixer):
        check_one_team(cfg.task, learning, "mixer", "use mixer=none, or ")
    built = cfg.mixer.build(learning)
    return None if built is None else built.to(device)


def check_one_team(task: TaskConfig, learning: TeamSpec, option: str, other_way: str = "") -> None:
    """Raise ``UserError`` where several groups that learn compete, though ``option`` makes one team of them.

    Args:
        task: that they learn.
        learning: the groups that learn.
        option: the recipe's option, for the error.
        other_way: what else than an opponent would do, for the error.
    """
    names = [group.name for group in learning]
    if task.groups_compete and len(names) > 1:
        raise UserError(
            f"{option}: {', '.join(names)} compete in {task.name}, so no single value serves all; {other_way}let one "
            f"of them learn against another, such as opponents.{names[-1]}=random"
        )
