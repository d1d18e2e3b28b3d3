"""The mutual information between the actions of agents who learn together."""

from __future__ import annotations

from typing import Protocol

from ctde_kit.errors import UserError
from ctde_kit.objectives import MutualInformation
from ctde_kit.recipes.configs.information_bounds import MutualInformationConfig
from ctde_kit.recipes.configs.tasks.task import TaskConfig
from ctde_kit.specs import TeamSpec


class WithMutualInformation(Protocol):
    """A recipe in which mutual information may earn something."""

    task: TaskConfig
    mutual_information: MutualInformationConfig


def mutual_information(cfg: WithMutualInformation, learning: TeamSpec, device: str) -> MutualInformation | None:
    """What rewards it among the groups that learn; ``None`` where it earns nothing.

    Raises:
        UserError: where these groups compete: each would know what the other does, from the latent that they share.
    """
    groups = [group.name for group in learning]
    if cfg.mutual_information.latent_size and len(groups) > 1 and cfg.task.groups_compete:
        raise UserError(
            f"mutual_information: {' and '.join(groups)} compete, and would share a latent that tells each what the "
            f"other does; give all but one of them an opponent, such as opponents.{groups[-1]}=random"
        )
    information = cfg.mutual_information.build(learning)
    return None if information is None else information.to(device)
