"""Short forms on the command line, expanded into overrides that hydra takes."""

from __future__ import annotations

import re
from pathlib import Path

from ctde_kit.errors import UserError
from ctde_kit.recipes.commands.options import options_of
from ctde_kit.recipes.commands.quoting import quoted, with_quoted_path
from ctde_kit.recipes.configs.data import no_run

# What stands below these is not known before the environment is: groups, and who acts for them.
OPEN = ("opponents", "initial", "policies")


def expand(argument: str) -> list[str]:
    """``task.params.KEY``, ``opponents.GROUP`` and ``initial.GROUP`` as overrides that hydra takes.

    An opponent is the name of a configuration in ``conf/opponent``, or else a run directory.

    Raises:
        UserError: for an opponent that is neither, and for ``task.params=`` without arguments.

    >>> expand("task.params.n_agents=4")
    ['++task.params.n_agents=4']
    >>> expand("opponents.agent=random")
    ['+opponent@opponents.agent=random']
    >>> expand("opponents.agent.sampled=true")
    ['opponents.agent.sampled=true']
    """
    name, separator, value = argument.partition("=")
    path = with_quoted_path(argument)
    if path != argument:
        return [path]
    owner, _, rest = name.partition(".")
    if name == "task.params" and not value.strip("{} "):
        raise UserError(
            f"{argument}: expected arguments, task.params.NAME=VALUE: those of the task's file stay; `ctde tasks NAME` "
            "shows them"
        )
    if name.startswith("task.params."):
        return [f"++{argument}"]
    if not separator or not rest or "." in rest:
        return [argument]
    if owner == "initial":
        return [f"++{name}={_absolute(name, value, [])}"]
    return choose_policy(name, name, value) if owner == "opponents" else [argument]


def with_whole_numbers(argument: str) -> str:
    """The argument with whole numbers written without an exponent, since hydra would take ``1e6`` for a fraction.

    >>> with_whole_numbers("total_frames=1e6"), with_whole_numbers("lr=1e-3")
    ('total_frames=1000000', 'lr=1e-3')
    """
    name, separator, value = argument.partition("=")
    if with_quoted_path(argument) != argument or name.partition(".")[0] in OPEN:
        return argument
    return f"{name}{separator}{','.join(map(_whole, value.split(',')))}"


def _whole(value: str) -> str:
    if not re.fullmatch(r"\d+(\.\d+)?[eE]\+?\d{1,2}", value) or not float(value).is_integer():
        return value
    return str(int(float(value)))


def choose_policy(package: str, shown: str, value: str) -> list[str]:
    """The overrides that put the policy ``value`` at ``package``; several, separated by commas, with ``-m``.

    Args:
        package: where in the configuration.
        shown: the option as the user wrote it.
        value: names of scripted policies, or run directories.

    Raises:
        UserError: for a value that is neither, or both.
    """
    names = scripted_policies()
    parts = _parts(value, names)
    scripted = [part in names for part in parts]
    if all(scripted):
        return [f"+opponent@{package}={value}"]
    if any(scripted):
        raise UserError(f"{shown}={value}: scripted policies and runs cannot be swept together; start them apart")
    return [f"+opponent@{package}=run", f"{package}.directory={_absolute(shown, value, names)}"]


def scripted_policies() -> list[str]:
    """Names of policies that are not runs."""
    return [name for name in options_of("opponent") if name != "run"]


def _absolute(option: str, value: str, names: list[str]) -> str:
    # A run may be resumed, or loaded, from another working directory.
    return ",".join(quoted(str(_run_directory(option, part, names))) for part in _parts(value, names))


def _parts(value: str, names: list[str]) -> list[str]:
    """The runs and scripted policies between the commas of ``value``; a comma in the path of a run separates none."""
    if _is_run(value):
        return [value]
    parts: list[str] = []
    rest = value.split(",")
    while rest:
        lengths = range(1, len(rest) + 1)
        found = next((n for n in lengths if ",".join(rest[:n]) in names or _is_run(",".join(rest[:n]))), 1)
        parts.append(",".join(rest[:found]))
        rest = rest[found:]
    return parts


def _is_run(value: str) -> bool:
    return bool(value) and (Path(value) / "config.yaml").is_file()


def _run_directory(option: str, value: str, names: list[str]) -> Path:
    if not _is_run(value):
        raise no_run(Path(value), f"{option}={value}", names)
    return Path(value).absolute()


def names_group(argument: str, options: tuple[str, ...]) -> bool:
    """Whether an argument is ``GROUP=POLICY``, and none of ``options``."""
    name, separator, _ = argument.partition("=")
    return bool(separator) and name.isidentifier() and name not in options


def expand_side(argument: str, options: tuple[str, ...]) -> list[str]:
    """``GROUP=[POLICY,POLICY]`` or ``GROUP=POLICY`` as overrides that put each policy at ``policies.GROUP``.

    Args:
        argument: of the command line.
        options: names that are not groups.

    >>> expand_side("adversary=[random,greedy_chase]", ("task",))
    ['+opponent@policies.adversary.p0=random', '+opponent@policies.adversary.p1=greedy_chase']
    """
    name, _, value = argument.partition("=")
    if not names_group(argument, options):
        return expand(argument)
    is_list = value.startswith("[") and value.endswith("]") and not _is_run(value)
    inside = value[1:-1] if is_list else value
    entries = [entry if _is_run(entry) else entry.strip() for entry in _parts(inside, scripted_policies())]
    try:
        chosen = [choose_policy(f"policies.{name}.p{i}", name, entry) for i, entry in enumerate(entries) if entry]
    except UserError as error:
        raise UserError(f"{error}; options other than groups are {', '.join(options)}") from error
    return [override for overrides in chosen for override in overrides]
