"""The arguments that a task's environment takes under ``task.params``, as far as files say so; nothing is imported."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import yaml

from ctde_kit.recipes.commands.options import CONF
from ctde_kit.recipes.configs.tasks.naming_params import defaults_in


def param_names(task: str) -> set[str]:
    """Names of arguments that the task's file gives, and those that the source of a VMAS scenario looks up.

    >>> sorted(param_names("vmas/balance"))
    ['n_agents', 'package_mass', 'random_package_pos_on_line']
    """
    path = CONF / "task" / f"{task}.yaml"
    if not path.is_file():
        return set()
    content = yaml.safe_load(path.read_text()) or {}
    name = str(content.get("name", task))
    given = set(content.get("params") or {})
    family, _, scenario = name.partition("/")
    return given | _scenario_arguments(scenario) if family == "vmas" else given


def _scenario_arguments(scenario: str) -> set[str]:
    vmas = importlib.util.find_spec("vmas")
    places = list((vmas and vmas.submodule_search_locations) or [])
    files = [file for place in places for file in Path(place, "scenarios").rglob(f"{scenario}.py")]
    return {name for file in files for name in defaults_in(file)}
