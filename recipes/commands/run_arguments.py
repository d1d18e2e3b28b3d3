"""The command line of a tool that takes trained runs: their directories, a task, and the tool's own options."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ctde_kit.errors import UserError
from ctde_kit.recipes.commands.application import compose, print_help
from ctde_kit.recipes.commands.arguments import HELP, check_arguments
from ctde_kit.recipes.commands.named_tasks import named_task
from ctde_kit.recipes.commands.options import Options
from ctde_kit.recipes.commands.short_forms import expand
from ctde_kit.recipes.configs.policy_options import PolicyOptions
from ctde_kit.recipes.configs.tasks.task import TaskConfig
from ctde_kit.recipes.wiring.saved_runs import SavedRun

Chosen = TypeVar("Chosen", bound=PolicyOptions)


@dataclass(frozen=True)
class RunArguments(Generic[Chosen]):
    """The parts of a command line of a tool that takes runs.

    Args:
        runs: the directories that it names.
        options: the tool's own, checked.
        task: the name that ``task=`` gives, ``None`` for each run's own task.
        changes: arguments ``task.NAME=VALUE``.
    """

    runs: list[SavedRun]
    options: Chosen
    task: str | None
    changes: list[str]

    def task_of(self, run: SavedRun) -> TaskConfig:
        """The task in which a run's policy is to act: its own or the one that was named, with the changes.

        Raises:
            UserError: for options that the task does not have, and where the run's own task names code that is not
                trusted.
        """
        own = run.task
        if self.task is None:
            run.check_trust(own, trust=self.options.trust)
            return changed(own, self.changes)
        return changed(named_task(self.task), self.changes).with_actions(continuous=own.continuous)


def read_arguments(program: str, config: type[Chosen], arguments: list[str]) -> RunArguments[Chosen] | None:
    """What the command line says; ``None`` after ``--help``, which is answered here.

    Raises:
        UserError: for mistakes in it.
    """
    config_name = program.removeprefix("ctde ")
    known = Options.of(config, config_name)
    if any(argument in HELP for argument in arguments):
        print_help(config_name, known, [])
        return None
    # A path may hold an equals sign.
    paths = [argument for argument in arguments if "=" not in argument.split("/")[0] and not argument.startswith("-")]
    paths += [argument for argument in arguments if argument not in paths and (Path(argument) / "config.yaml").exists()]
    options = [argument for argument in arguments if argument not in paths]
    if not paths:
        raise UserError(f"expected the directory of a run, as training printed it; `{program} --help` shows examples")
    runs = [SavedRun(Path(path)) for path in paths]
    for run in runs:
        _ = run.config  # a missing run is an error at once
    changes = [option for option in options if option.startswith("task.")]
    names = [option.removeprefix("task=") for option in options if option.startswith("task=")]
    outputs = [option.removeprefix("output=") for option in options if option.startswith("output=")]
    own = [option for option in options if not option.startswith(("task.", "task=", "output="))]
    check_arguments(program, known, own)
    overrides = [override for option in own for override in expand(option)]
    chosen = OmegaConf.to_object(compose(config_name, overrides))
    assert isinstance(chosen, config)
    if outputs:
        # Not through hydra, in whose grammar some characters of a path have a meaning.
        chosen = dataclasses.replace(chosen, output=outputs[-1])
    return RunArguments(runs, chosen, (names or [None])[-1], changes)


def changed(task: TaskConfig, changes: list[str]) -> TaskConfig:
    """A copy of ``task`` in which ``task.NAME=VALUE`` and ``task.params.NAME=VALUE`` hold.

    Raises:
        UserError: for an option that it does not have, or a value of another type.

    >>> from ctde_kit.recipes import VmasTask
    >>> changed(VmasTask(params={"n_agents": 3}), ["task.params.n_agents=5", "task.max_steps=50"]).params
    {'n_agents': 5}
    """
    node = OmegaConf.structured(task)
    fields = [field.name for field in dataclasses.fields(task)]
    for change in changes:
        override = OverridesParser.create().parse_override(expand(change)[0])
        name = override.key_or_group.removeprefix("task.")
        options = ", ".join(f"task.{field}" for field in fields if field not in ("name", "groups_compete"))
        if name.startswith("params.") and "params" not in fields:
            raise UserError(f"{change}: {task.name} has no task.params; its options are {options}")
        if name.partition(".")[0] not in fields or override.is_sweep_override():
            raise UserError(f"{change}: expected one value for one of {', '.join(f'task.{field}' for field in fields)}")
        try:
            OmegaConf.update(node, name, override.value(), force_add=name.startswith("params."))
        except OmegaConfBaseException as error:
            raise UserError(f"{change}: {str(error).splitlines()[0]}") from error
    return OmegaConf.to_object(node)  # pyright: ignore[reportReturnType]  # the class of `task`
