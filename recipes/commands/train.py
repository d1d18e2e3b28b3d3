"""The command of a recipe: a new run, or one that goes on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ctde_kit.errors import UserError
from ctde_kit.recipes.commands.application import compose_and_run
from ctde_kit.recipes.commands.arguments import check_arguments, is_true
from ctde_kit.recipes.commands.code_errors import code_errors
from ctde_kit.recipes.commands.ignored import check_read
from ctde_kit.recipes.commands.loading import MAY_CHANGE, read_config, read_population
from ctde_kit.recipes.commands.options import Options
from ctde_kit.recipes.commands.own_tasks import with_own_task
from ctde_kit.recipes.commands.recipes import RECIPES
from ctde_kit.recipes.commands.short_forms import expand, with_whole_numbers
from ctde_kit.recipes.configs.checks import in_full
from ctde_kit.recipes.configs.data import no_run
from ctde_kit.recipes.configs.distributed_options import RayDistribution
from ctde_kit.recipes.configs.own_code import code_of
from ctde_kit.recipes.configs.recipe import RecipeConfig, has_field
from ctde_kit.recipes.wiring.population_directory import PopulationDirectory


def train(name: str, arguments: list[str]) -> None:
    """Do what the command line of the recipe ``name`` says.

    Raises:
        UserError: for mistakes in it.
    """
    if any(argument.startswith("resume=") for argument in arguments):
        _resume(name, arguments)
        return
    options = Options.of(RECIPES[name].config, name)
    overrides = checked_overrides(name, options, arguments)
    compose_and_run(f"ctde-{name}", name, options, overrides, lambda cfg, path: _start(name, cfg, path))


def checked_overrides(name: str, options: Options, arguments: list[str]) -> list[str]:
    """The command line of the recipe ``name`` as hydra takes it.

    Raises:
        UserError: for mistakes that can be seen before anything is composed.
    """
    arguments = with_own_task(arguments)
    check_critic(name, arguments)
    arguments = [with_whole_numbers(argument) for argument in arguments]
    check_arguments(f"ctde-{name}", options, arguments)
    return [override for argument in arguments for override in expand(argument)]


def check_critic(name: str, arguments: list[str]) -> None:
    """Raise ``UserError`` where a critic is chosen for a recipe that has none."""
    chosen = [part for part in arguments if part.startswith(("critic=", "critic.", "network@critic"))]
    if chosen and not has_field(RECIPES[name].config, "critic"):
        raise UserError(
            f"{chosen[0]}: ctde-{name} has no critic, its actors' own values are mixed; leave it out and choose a "
            "mixer, or run ctde-mappo (critics of states) or ctde-maddpg (critics of actions)"
        )


def recipe_config(cfg: DictConfig) -> RecipeConfig:
    """The checked configuration that hydra composed; errors name each option in full, from the recipe's own on."""
    try:
        config = OmegaConf.to_object(cfg)
    except UserError as error:
        raise UserError(_in_full(cfg, str(error))) from error
    assert isinstance(config, RecipeConfig)
    return config


def _in_full(cfg: DictConfig, message: str) -> str:
    """The error's ``message`` with the whole name of the option, found as the innermost part that raises the same."""
    for name in cfg:
        part = cfg[name]
        if not isinstance(part, DictConfig):
            continue
        try:
            OmegaConf.to_object(part)
        except UserError as error:
            if str(error) == message:
                inner, kind = _in_full(part, message), OmegaConf.get_type(part)
                if inner != message:
                    return f"{name}.{inner}"
                return in_full(str(name), kind, message) if dataclasses.is_dataclass(kind) else message
    return message


def _start(name: str, cfg: DictConfig, path: Path) -> float | None:
    config = recipe_config(cfg)
    if config.algorithm != name:
        raise UserError(f"algorithm={config.algorithm}: this is ctde-{name}; run ctde-{config.algorithm}")
    if HydraConfig.get().mode == RunMode.RUN:
        # Jobs of a sweep may differ in what makes an option count.
        check_read(config, HydraConfig.get().overrides.task)
    in_study = HydraConfig.get().runtime.choices.get("study") is not None
    # Not before: what follows loads torch.
    from ctde_kit.recipes.commands.lost_learners import persist
    from ctde_kit.recipes.commands.population_runs import go_on_with_population, start_population
    from ctde_kit.recipes.commands.run_guard import RunExistsError, how_to_go_on
    from ctde_kit.recipes.commands.running import go_on, start

    try:
        with code_errors(path, lambda: how_to_go_on(config, path, bool(code_of(config)))):
            if config.distributed.n_members > 1:
                going_on = in_study and PopulationDirectory(path).exists
                (go_on_with_population if going_on else start_population)(config, path)
            elif in_study and (path / "config.yaml").exists():
                persist(config, path, lambda: go_on(config, path))
            else:
                persist(config, path, lambda: start(config, path))
    except RunExistsError as error:
        option = "hydra.run.dir" if HydraConfig.get().mode == RunMode.RUN else "hydra.sweep.dir"
        raise UserError(f"{path} holds a run already: go on with resume={path}, or choose another {option}") from error
    return final_return(config, path)


def final_return(config: RecipeConfig, path: Path) -> float | None:
    """The figure of a run that has ended: its final mean return, or the only learning group's where groups compete.

    ``None`` where several groups learn against each other.
    """
    summary = json.loads((path / "summary.json").read_text())
    if "eval/return_mean" in summary:
        return summary["eval/return_mean"]
    groups = [name.split("/")[1] for name in summary if name.startswith("eval/") and name.endswith("/return_mean")]
    learning = [group for group in groups if group not in config.opponents]
    return summary[f"eval/{learning[0]}/return_mean"] if len(learning) == 1 else None


def _resume(name: str, arguments: list[str]) -> None:
    values: dict[str, str] = {}
    for argument in arguments:
        option, separator, value = argument.partition("=")
        if not separator or option not in ("resume", "trust", *MAY_CHANGE):
            raise UserError(
                f"resume takes {', '.join(MAY_CHANGE)} and trust beside it, found {argument!r}; start anew instead"
            )
        if option in values:
            raise UserError(f"{option}: it is given twice; give it once")
        values[option] = value
    if not values["resume"]:
        raise UserError("resume=: expected the directory that the run printed, resume=RUN_DIR")
    given, trust = values.pop("resume"), is_true(f"trust={values.pop('trust', 'false')}")
    directory = Path(given).absolute()
    population = PopulationDirectory(directory)
    if not population.exists and not (directory / "config.yaml").is_file():
        raise no_run(Path(given), f"resume={given}")
    config = read_population(population) if population.exists else read_config(directory)
    if config.algorithm != name:
        raise UserError(f"{directory} is a run of {config.algorithm!r}: resume it with ctde-{config.algorithm}")
    config = _overridden(config, values)
    from ctde_kit.recipes.commands.lost_learners import persist
    from ctde_kit.recipes.commands.population_runs import resume_population
    from ctde_kit.recipes.commands.run_guard import how_to_go_on
    from ctde_kit.recipes.commands.running import resume

    with code_errors(directory, lambda: how_to_go_on(config, directory, trust)):
        if population.exists:
            resume_population(config, directory, trust=trust)
        else:
            persist(config, directory, lambda: resume(config, directory, trust=trust))


def _overridden(config: RecipeConfig, values: dict[str, str]) -> RecipeConfig:
    changes: dict[str, object] = dict(values)
    if "logger" in changes:
        changes["logger"] = dataclasses.replace(config.logger, name=values["logger"])
    if "distributed.address" in changes:
        # The next job of a cluster may run on other machines.
        address = str(changes.pop("distributed.address"))
        if not isinstance(config.distributed, RayDistribution):
            raise UserError(f"distributed.address={address}: this run is not one of distributed=ray; leave it out")
        changes["distributed"] = dataclasses.replace(config.distributed, address=address)
    for name in {"total_frames", "threads"} & changes.keys():
        changes[name] = None if (name, values[name]) == ("threads", "null") else _whole_number(name, values[name])
    return dataclasses.replace(config, **changes)


def _whole_number(option: str, value: str) -> int:
    try:
        return int(with_whole_numbers(f"{option}={value}").partition("=")[2])
    except ValueError as error:
        raise UserError(f"{option}={value}: expected a whole number") from error
