"""The command line of a tool that takes one task: ``task=NAME`` and options of it."""

from __future__ import annotations

from ctde_kit.errors import UserError
from ctde_kit.recipes.commands.arguments import check_arguments
from ctde_kit.recipes.commands.named_tasks import composed_task
from ctde_kit.recipes.commands.options import Options
from ctde_kit.recipes.commands.own_tasks import with_own_task
from ctde_kit.recipes.commands.recipes import RECIPES
from ctde_kit.recipes.commands.short_forms import expand
from ctde_kit.recipes.configs.tasks.task import TaskConfig


def names_task(argument: str) -> bool:
    """Whether an argument chooses the task, or is an option of it."""
    return argument.startswith(("task=", "task."))


def task_of(program: str, arguments: list[str], expected: str = "task=NAME and options of the task") -> TaskConfig:
    """The task that ``task=NAME`` and its options choose.

    Args:
        program: whose command line it is.
        arguments: as the user wrote them.
        expected: what the program takes, for errors.

    Raises:
        UserError: for mistakes in them, and where they choose no task or are of something else.
    """
    unknown = [argument for argument in arguments if not names_task(argument)]
    if unknown or sum(argument.startswith("task=") for argument in arguments) != 1:
        raise UserError(f"{(unknown or arguments or ['nothing'])[0]}: expected {expected}")
    arguments = with_own_task(arguments)
    check_arguments(program, Options.of(RECIPES["mappo"].config, "mappo"), arguments)
    return composed_task([override for argument in arguments for override in expand(argument)])
