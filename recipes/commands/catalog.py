"""What there is: the lists that ``ctde``, ``ctde recipes``, ``ctde tasks`` and ``ctde parts`` print."""

from __future__ import annotations

from ctde_kit.recipes.commands.application import CONF, options_of
from ctde_kit.recipes.commands.recipes import RECIPES
from ctde_kit.recipes.commands.schemas import FOLDERS
from ctde_kit.recipes.configs.choices import CHOICES

OVERVIEW = """\
ctde: multi-agent reinforcement learning with centralized training and decentralized execution.

  ctde RECIPE [OPTION=VALUE ...]   train; `ctde RECIPE --help` lists the options, ctde-RECIPE is the same command
  ctde RECIPE resume=RUN_DIR       go on with a run
  ctde recipes                     the algorithms
  ctde tasks                       the environments
  ctde parts                       networks, critics, mixers and what else an option can choose
  ctde evaluate RUN_DIR            whole episodes of a trained policy, as figures and as a file
  ctde watch RUN_DIR               a video of the best, median and worst of many episodes
  ctde export RUN_DIR              a trained policy as ONNX or torch.export, to run without this package
  ctde benchmark                   many runs: recipes x tasks x seeds, side by side, resumed where they stopped
  ctde cross-play                  every policy of one group against every policy of another
  ctde critic-layouts              the page of the study of critic layouts

Example
  ctde mappo task=vmas/navigation total_frames=300000 video=true
"""
# The option that chooses from a folder, where it is not the folder's own name.
OPTIONS = {
    "network": "network@actor",
    "replay_form": "replay",
    "opponent": "opponents.GROUP",
}


def overview() -> None:
    """Print what the command can do."""
    print(OVERVIEW, end="")


def recipes(arguments: list[str]) -> None:
    """Print the algorithms."""
    width = max(map(len, RECIPES))
    for name, recipe in RECIPES.items():
        print(f"{name:{width}}  {recipe.summary}")


def tasks(arguments: list[str]) -> None:
    """Print the environments that have a file of options."""
    for name in options_of("task"):
        print(f"task={name}")


def parts(arguments: list[str]) -> None:
    """Print what each option can choose."""
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


def _comment(folder: str, name: str) -> str:
    """What a file of options says of itself in its first line."""
    first, *_ = (CONF / folder / f"{name}.yaml").read_text().splitlines()
    return first.removeprefix("# ") if first.startswith("#") else ""


def _first_line(config: type) -> str:
    return (config.__doc__ or "").strip().splitlines()[0]
