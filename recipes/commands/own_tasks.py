"""A user's own environment on the command line: ``task=vmas/FILE.py:CLASS`` and the like, as options of a task."""

from __future__ import annotations

import re
from pathlib import Path

from ctde_kit.errors import UserError
from ctde_kit.recipes.configs.own_modules import check_name, with_absolute_file

# Any environment of a package, such as ``task=pettingzoo/sisl/pursuit_v5``, ``task=lbf/Foraging-5x5-2p-1f-v3``.
PACKAGED = re.compile(r"(pettingzoo)/([\w.]+/[\w.-]+)|(lbf)/(Foraging[\w.-]+)")
# By what stands before the slash: the file of ``conf/task``, and the option that has the code.
FAMILIES = {
    "vmas": ("own/vmas", "task.scenario"),
    "pettingzoo": ("own/pettingzoo", "task.env"),
    "torchrl": ("own/torchrl", "task.env"),
    "lbf": ("own/lbf", "task.env_id"),
}


def with_own_task(arguments: list[str]) -> list[str]:
    """The command line with ``task=FAMILY/PLACE:NAME`` replaced by the options that it stands for.

    These are the file of the task, the code that builds the environment, and the task's name.
    ``task=pettingzoo/PACKAGE/MODULE`` and ``task=lbf/ID``, for environments without a file of options, are replaced
    alike.

    Raises:
        UserError: for code with no family in front of it, and for several environments at once.

    >>> with_own_task(["task=torchrl/games.tag:make", "seed=1"])
    ['task=own/torchrl', 'task.env=games.tag:make', 'task.name=torchrl/tag.make', 'seed=1']
    """
    given = [argument.partition("=")[0] for argument in arguments]
    found: list[str] = []
    for argument in arguments:
        option, _, value = argument.partition("=")
        if option == "task" and value in [file for file, _ in FAMILIES.values()]:
            raise UserError(f"{argument}: name your own code, task={value.removeprefix('own/')}/FILE.py:NAME")
        if option == "task" and ":" in value:
            file, code, name = _chosen(argument, value)
            found += [f"task={file}", code, *([] if "task.name" in given else [f"task.name={name}"])]
        elif option == "task" and value.endswith(".py"):
            raise _without_a_name(argument, value)
        elif option == "task" and (packaged := PACKAGED.fullmatch(value)):
            family, env = [part for part in packaged.groups() if part]
            file, place = FAMILIES[family]
            found += [f"task={file}", f"{place}={env}", *([] if "task.name" in given else [f"task.name={value}"])]
        else:
            found.append(argument)
    return found


def run_task(given: str) -> str:
    """The name that runs of ``task=given`` have.

    >>> run_task("vmas/tag.py:Scenario"), run_task("vmas/navigation")
    ('vmas/tag', 'vmas/navigation')
    """
    named = [part for part in with_own_task([f"task={given}"]) if part.startswith("task.name=")]
    return named[0].partition("=")[2] if named else given


def _without_a_name(argument: str, value: str) -> UserError:
    family = value.partition("/")[0]
    if family not in FAMILIES or family == "lbf":
        file = value.removeprefix("lbf/")
        kinds = f"task=vmas/{file}:CLASS or task=pettingzoo/{file}:FUNCTION"
        return UserError(f"{argument}: name its kind and the class or function in it, {kinds}")
    what = "CLASS" if family == "vmas" else "FUNCTION"
    return UserError(f"{argument}: name the {what.lower()} in it, {argument}:{what}")


def _chosen(argument: str, value: str) -> tuple[str, str, str]:
    family, _, code = value.partition("/")
    if family not in FAMILIES or family == "lbf":
        found = f"{family}/" if "/" in value else "nothing"
        raise UserError(
            f"{argument}: expected vmas/, pettingzoo/ or torchrl/ before your own code, found {found}; a VMAS scenario "
            f"is task=vmas/{value.removeprefix('lbf/')}"
        )
    file, option = FAMILIES[family]
    if "," in code and not Path(code.rpartition(":")[0]).is_file():
        raise UserError(f"{argument}: environments of your own cannot be swept; start a command for each")
    check_name(code, argument)
    place, _, attribute = code.rpartition(":")
    module = Path(place).stem if place.endswith(".py") else place.rpartition(".")[2]
    own = re.sub(r"[^\w.-]", "_", module) + ("" if attribute == "Scenario" else f".{attribute}")
    return file, f"{option}={with_absolute_file(code)}", f"{family}/{own}"
