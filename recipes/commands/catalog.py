"""The lists that ``ctde``, ``ctde recipes``, ``ctde tasks`` and ``ctde parts`` print."""

from __future__ import annotations

from contextlib import closing
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ctde_kit.errors import UserError
from ctde_kit.recipes.commands.arguments import text
from ctde_kit.recipes.commands.named_tasks import named_task
from ctde_kit.recipes.commands.options import CONF, options_of
from ctde_kit.recipes.commands.recipes import RECIPES
from ctde_kit.recipes.commands.schemas import FOLDERS
from ctde_kit.recipes.configs.choices import CHOICES
from ctde_kit.recipes.configs.data import to_data

if TYPE_CHECKING:
    from ctde_kit.specs import GroupSpec

OVERVIEW = """\
ctde: multi-agent reinforcement learning with centralized training and decentralized execution.

  ctde RECIPE [OPTION=VALUE ...]   train; `ctde RECIPE --help` lists the options, ctde-RECIPE is the same command
  ctde RECIPE resume=RUN_DIR       go on with a run
  ctde recipes                     the algorithms
  ctde tasks                       the environments; `ctde tasks NAME` shows one
  ctde --version                   the versions of ctde_kit, torch, torchrl, tensordict and vmas
  ctde parts                       networks, critics, mixers and what else an option can choose
  ctde evaluate RUN_DIR            whole episodes of a trained policy, as figures and as a file
  ctde watch RUN_DIR               a video of the best, median and worst of many episodes
  ctde export RUN_DIR              a trained policy as ONNX or torch.export, to run without this package
  ctde compare RUN_DIR ...         runs of one task: curves with bands over seeds, a table, probability of improvement
  ctde benchmark                   many runs: recipes x tasks x seeds, side by side, resumed where they stopped
  ctde report DIR ... output=OUT   a page that compares the runs in directories: figures, and a table per task
  ctde cross-play                  every policy of one group against every policy of another
  ctde describe task=NAME          an environment's groups, sizes and masks, and what random play earns
  ctde doctor task=NAME | RUN_DIR  check an environment, or a run's parts, against the rules of multi-agent learning
  ctde critic-layouts              the page of the study of critic layouts

Example
  ctde mappo task=vmas/navigation total_frames=300000 video=true
"""
PACKAGES = ("ctde_kit", "torch", "torchrl", "tensordict", "vmas")
# By the beginning of a task's name, the extra that it needs, and the modules that the extra brings.
EXTRAS = {
    "lbf/": ("lbf", ("lbforaging",)),
    "rware/": ("rware", ("rware",)),
    "smax/": ("smax", ("jaxmarl",)),
    "mamujoco/": ("mamujoco", ("gymnasium_robotics",)),
    "pettingzoo/multiwalker": ("sisl", ("Box2D", "pygame")),
}
# The option that chooses from a folder, where it is not the folder's own name.
OPTIONS = {
    "network": "network@actor",
    "replay_form": "replay",
    "opponent": "opponents.GROUP",
}
# What sets several options at once.
BUNDLES = {
    "layout": "A critic's layout and order of observations, several options under one name (MAPPO, MADDPG and MASAC)",
    "preset": "An algorithm's setting, several options under one name (MADDPG)",
    "study": "Many runs under one name; the command starts them, and resumes those that were stopped",
}


def overview() -> None:
    """Print what the command can do."""
    print(OVERVIEW, end="")


def versions() -> None:
    """Print the versions of the package and of what its results depend on."""
    print("\n".join(f"{package} {version(package)}" for package in PACKAGES))


def recipes(arguments: list[str]) -> None:
    """Print the algorithms."""
    _refuse("recipes", arguments)
    width = max(map(len, RECIPES))
    for name, recipe in RECIPES.items():
        print(f"{name:{width}}  {recipe.summary}")


def tasks(arguments: list[str]) -> None:
    """Print the tasks that have a file of options; where some are named, the options and sizes of those instead."""
    for name in arguments:
        _describe(name)
    if arguments:
        return
    named = [name for name in options_of("task") if not name.startswith("own/")]
    width = max(map(len, named))
    for name in named:
        extra = _missing_extra(name)
        print(f"task={name}" if extra is None else f'task={name:{width}}  needs pip install "ctde-kit[{extra}]"')
    print("task=vmas/FILE.py:CLASS, task=pettingzoo/FILE.py:FUNCTION, task=torchrl/FILE.py:FUNCTION: your own")
    print("task=pettingzoo/PACKAGE/MODULE, task=lbf/ID: any environment of a package (pettingzoo/sisl/pursuit_v5)")
    print("`ctde tasks NAME` shows a task's options, groups and sizes")


def _missing_extra(task: str) -> str | None:
    """The extra that a task needs and that is not installed; nothing is imported to find out."""
    for beginning, (extra, modules) in EXTRAS.items():
        if task.startswith(beginning) and any(find_spec(module) is None for module in modules):
            return extra
    return None


def _describe(name: str) -> None:
    """Print a task's options and the sizes of its groups; its environment is built for that."""
    name = name.removeprefix("task=")
    task = named_task(name)
    # Not before: it loads torch.
    from ctde_kit.specs import TeamSpec

    with closing(task.build(seed=0, device="cpu", n_envs=1)) as env:
        team = TeamSpec.from_env(env)
    print(f"task={task.name}")
    for option, value in to_data(task).items():
        if option not in ("kind", "name"):
            parts = value.items() if isinstance(value, dict) else ()
            lines = {f"task.{option}.{part}": one for part, one in parts} or {f"task.{option}": value}
            print("\n".join(f"  {path}={text(one)}" for path, one in lines.items()))
    for group in team:
        kind = f"{'discrete' if group.action.discrete else 'continuous'}, of {sizes(group)}"
        print(f"  group {group.name}: {agents(group)}, observation {group.observation_dim}, action {kind}")


def agents(group: GroupSpec) -> str:
    """How many agents a group has, in words."""
    return "1 agent" if group.n_agents == 1 else f"{group.n_agents} agents"


def sizes(group: GroupSpec) -> str:
    """The sizes of an agent's action, such as ``2 x 5`` for a choice of two and one of five."""
    return " x ".join(map(str, group.action.sizes))


def _refuse(command: str, arguments: list[str]) -> None:
    if arguments:
        raise UserError(f"{arguments[0]}: `ctde {command}` takes no argument; leave it out")


def parts(arguments: list[str]) -> None:
    """Print what each option can choose."""
    _refuse("parts", arguments)
    for declared, folder in FOLDERS.items():
        if folder == "task":
            continue
        option = OPTIONS.get(folder, folder)
        print(f"{option}  {_first_line(declared).partition(';')[0].rstrip('.')}")
        classes = CHOICES[declared]
        folder = "replay" if folder == "replay_form" else folder
        for name in options_of(folder):
            said = _comment(folder, name) or _first_line(classes[name])
            print(f"  {option}={name}  {said}")
    for folder, meaning in BUNDLES.items():
        print(f"{folder}  {meaning}")
        for name in options_of(folder):
            print(f"  {folder}={name}  {_comment(folder, name)}")


def _comment(folder: str, name: str) -> str:
    """The comment at the head of a file of options."""
    lines = (CONF / folder / f"{name}.yaml").read_text().splitlines()
    said = [line for line in lines[:2] if line.startswith("# ") and "@package" not in line]
    return said[0].removeprefix("# ") if said else ""


def _first_line(config: type) -> str:
    return (config.__doc__ or "").strip().splitlines()[0]
