"""Tasks by the names that the command line has for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ValidationError

from ctde_kit.errors import UserError
from ctde_kit.recipes.commands.application import compose
from ctde_kit.recipes.commands.arguments import close_choices
from ctde_kit.recipes.commands.options import options_of
from ctde_kit.recipes.commands.own_tasks import with_own_task
from ctde_kit.recipes.commands.quoting import with_quoted_path
from ctde_kit.recipes.configs.tasks.task import TaskConfig


def named_task(name: str, /, **options: object) -> TaskConfig:
    """The task that ``task=NAME`` chooses on the command line, with the arguments that its file gives the environment.

    ``VmasTask("vmas/navigation")`` has VMAS's own arguments instead.

    Args:
        name: as ``ctde tasks`` lists it, of a package (``pettingzoo/sisl/pursuit_v5``), or of your own code
            (``vmas/FILE.py:CLASS``).
        options: fields of the task to change, such as ``n_envs``; ``params`` are changed one by one, as on the command
            line, so that the others of its file stay.

    Raises:
        UserError: for an unknown name or option.

    >>> from ctde_kit.recipes import named_task
    >>> task = named_task("vmas/navigation", n_envs=30)
    >>> task.n_envs, task.params
    (30, {'n_agents': 3, 'shared_rew': False})
    """
    names = options_of("task")
    arguments = with_own_task([f"task={name}"])
    if name not in names and arguments == [f"task={name}"]:
        close = close_choices(name, names)
        hint = f"did you mean {' or '.join(close)}?" if close else "`ctde tasks` lists them"
        raise UserError(f"{name!r}: there is no such task; {hint}")
    node = compose("mappo", [with_quoted_path(argument) for argument in arguments]).task
    kind = OmegaConf.get_type(node)
    assert kind is not None
    known = [field.name for field in dataclasses.fields(kind)]
    unknown = [option for option in options if option not in known]
    if unknown:
        own = (
            f"; its environment's own arguments are given as params={{{unknown[0]!r}: ...}}"
            if "params" in known
            else ""
        )
        raise UserError(f"{unknown[0]}: {name} has the options {', '.join(known)}{own}")
    _set_plain(node, options)
    task = _built(node)
    params = options.get("params")
    if isinstance(params, dict):
        options["params"] = {**vars(task)["params"], **params}
    return dataclasses.replace(task, **options)


def _set_plain(node: DictConfig, options: Mapping[str, object]) -> None:
    """Set options in the composed file, so that what it derives from them follows, as on the command line."""
    for option, value in options.items():
        if value is None or isinstance(value, bool | int | float | str):
            try:
                node[option] = value
            except ValidationError as error:
                raise UserError(f"{option}: {str(error).splitlines()[0]}") from error


def composed_task(overrides: list[str]) -> TaskConfig:
    """The task that hydra composes of overrides of ``task``."""
    return _built(compose("mappo", overrides).task)


def _built(node: DictConfig) -> TaskConfig:
    task = OmegaConf.to_object(node)
    assert isinstance(task, TaskConfig)
    return task
