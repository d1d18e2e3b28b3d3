"""A console script on hydra: composed options, one job or several, and mistakes in one line."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from ctde_kit.errors import NotFiniteError, RunStopped, UserError, WorkerError
from ctde_kit.files import remove_empty
from ctde_kit.recipes.commands.arguments import HELP, MULTIRUN, several_jobs
from ctde_kit.recipes.commands.code_errors import of_own_code, with_place
from ctde_kit.recipes.commands.help_text import option_lines
from ctde_kit.recipes.commands.option_words import in_options
from ctde_kit.recipes.commands.options import CONF, Options, options_of
from ctde_kit.recipes.commands.schemas import register_schemas
from ctde_kit.recipes.commands.short_forms import scripted_policies
from ctde_kit.recipes.commands.sweep_names import fixed_options
from ctde_kit.recipes.configs.choices import CHOICES

# Options that say where a command writes.
DIRECTORIES = ("hydra.run.dir", "hydra.sweep.dir", "output")


def guarded(program: str, run: Callable[[list[str]], None], arguments: list[str], stopped: str = "") -> None:
    """Call ``run`` with a command line's arguments; mistakes are one line and exit code 2.

    Args:
        program: its name.
        run: the work.
        arguments: of the command line.
        stopped: what to print after "stopped" when the user interrupts it.
    """
    try:
        run(arguments)
    except (UserError, NotFiniteError, HydraException, OmegaConfBaseException) as error:
        print(f"{program}: error: {_one_line(error, arguments)}", file=sys.stderr)
        sys.exit(2)
    except WorkerError as error:
        print(f"{program}: error: {with_place(error)}", file=sys.stderr)
        sys.exit(2)
    except RunStopped as stop:
        print(f"{program}: {stop}", file=sys.stderr)
        sys.exit(128 + stop.signal)
    except KeyboardInterrupt:
        print(f"{program}: stopped{stopped}", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        message = of_own_code(error)
        if message is None:
            raise
        print(f"{program}: error: {message}; mend it", file=sys.stderr)
        sys.exit(2)


def compose_and_run(
    program: str,
    config_name: str,
    options: Options,
    overrides: list[str],
    run: Callable[[DictConfig, Path], float | None],
) -> None:
    """Compose the configuration ``config_name`` and call ``run`` with it and its directory, for each job of ``-m``.

    Several jobs end with a line that says how many there were, and where they are. What ``run`` returns is the job's
    figure for sweepers that search for the best options; with ``hydra.sweeper.direction=maximize`` more is better.

    Raises:
        UserError: the last mistake; those of other jobs are printed.
    """
    if any(override in HELP for override in overrides):
        print_help(config_name, options, [override for override in overrides if override not in HELP])
        return
    register_schemas()
    multirun = several_jobs(overrides)
    if multirun and any(override.startswith("hydra.run.dir=") for override in overrides):
        raise UserError("hydra.run.dir: several runs need several directories; use hydra.sweep.dir")
    there_before = _directories_before(overrides)
    paths: list[Path] = []
    errors: list[tuple[Path, Exception]] = []

    def job(cfg: DictConfig) -> float | None:
        # Not resolved: the path of the working directory may contain `${...}`, which OmegaConf would look up.
        runtime = OmegaConf.to_container(HydraConfig.get().runtime, resolve=False)
        assert isinstance(runtime, dict)
        path = Path(runtime["output_dir"])
        paths.append(path)
        # An exception that leaves the job makes hydra print a line of its own.
        try:
            return run(cfg, path)
        except Exception as error:
            if _needs_exceptions():
                raise
            errors.append((path, error))
        finally:
            # Only where nothing was written.
            remove_empty(directory for directory in (path, *path.parents) if directory not in there_before)
        return None

    given = [override for override in overrides if override not in MULTIRUN]
    try:
        # `hydra.main` composes everything once more, only to find out whether there are several jobs.
        with _configuration_files():
            application = GlobalHydra.instance().hydra
            assert application is not None
            if multirun:
                application.multirun(config_name, job, [*fixed_options(given), *given, "hydra.mode=MULTIRUN"])
            else:
                application.run(config_name, job, given)
    except MissingConfigException as error:
        raise _unknown_option(error) from error
    except OSError as error:
        if error.filename is None:
            raise
        directory = "hydra.sweep.dir" if multirun else "hydra.run.dir"
        raise UserError(f"{error.filename} cannot be written ({error.strerror}): choose another {directory}") from error
    _conclude(program, paths, errors)


def _directories_before(overrides: list[str]) -> set[Path]:
    """The directories on the way to the runs' that are there before hydra makes the rest.

    Below ``runs``, and below a part of a path that hydra fills in, they are not looked for.
    """
    given = [value for name, _, value in (override.partition("=") for override in overrides) if name in DIRECTORIES]
    places = [Path(value.strip("'\"").partition("${")[0]).absolute() for value in ["runs", *given]]
    return {directory for place in places for directory in (place, *place.parents) if directory.exists()}


def _conclude(program: str, paths: list[Path], errors: list[tuple[Path, Exception]]) -> None:
    """Say where several jobs are, print the mistakes of all but the last that failed, and raise the last one."""
    if len(paths) > 1:
        failed = f", {len(errors)} of them failed" if errors else ""
        print(f"{len(paths)} runs{failed}: {os.path.commonpath(paths)}")
    if errors:
        for path, error in errors[:-1]:
            print(f"{program}: error: {path.name}: {_one_line(error)}", file=sys.stderr)
        raise errors[-1][1]


def _needs_exceptions() -> bool:
    """Whether launcher or sweeper is not hydra's default: then only an exception tells it that a job failed."""
    choices = HydraConfig.get().runtime.choices
    return choices["hydra/launcher"] != "basic" or choices["hydra/sweeper"] != "basic"


def _configuration_files() -> hydra.initialize_config_module:
    """Inside this block hydra composes from ``recipes/conf``."""
    return hydra.initialize_config_module("ctde_kit.recipes.conf", version_base="1.3")


def compose(config_name: str, overrides: list[str]) -> DictConfig:
    """The configuration ``config_name`` with these overrides, inside a command or without one."""
    register_schemas()
    if GlobalHydra.instance().is_initialized():
        return hydra.compose(config_name, overrides)
    with _configuration_files():
        return hydra.compose(config_name, overrides)


def print_help(config_name: str, options: Options, overrides: list[str]) -> None:
    """Print the options and their values; hydra's own help lists every folder of files first, which takes seconds."""
    register_schemas()
    with _configuration_files():
        cfg = hydra.compose(config_name, overrides, return_hydra_config=True)
    template = cfg.hydra.help.template
    with open_dict(cfg):
        del cfg["hydra"]
    values = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(values, dict)
    named = (override.partition("=") for override in overrides)
    chosen = {name: value for name, _, value in named if name in options.choices}
    lines = option_lines(options.with_choices(chosen), {str(name): value for name, value in values.items()})
    template = template.replace("$CHOICES", "\n  ".join(_choices(options)))
    print(template.replace("$CONFIG", "\n".join(lines)))


def _choices(options: Options) -> list[str]:
    """One line for each option that chooses a part: its name, and what it can choose."""
    families = {
        option: dict.fromkeys(re.sub("/.*", "/*", name) for name in options.offered(option))
        for option in options.choices
    }
    # Files of a user's own code, which `task=vmas/FILE.py:NAME` stands for.
    families.get("task", {}).pop("own/*", None)
    if "opponents" in options.types:
        families["opponents.GROUP"] = dict.fromkeys([*scripted_policies(), "RUN_DIR"])
    width = max(map(len, families), default=0)
    return [f"{option:{width}}  {', '.join(names)}" for option, names in families.items()]


def _unknown_option(error: MissingConfigException) -> UserError:
    group, _, name = (error.missing_cfg_file or "").partition("/")
    if group == "hydra":
        part, _, name = name.partition("/")
        return UserError(f'hydra/{part}={name}: hydra has no such choice; pip install "ctde-kit[sweep]" brings several')
    options = options_of(group)
    close = difflib.get_close_matches(name, options, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"choose one of {', '.join(options)}"
    return UserError(f"{group}={name}: there is no such {group}; {hint}")


def _one_line(error: BaseException, arguments: Sequence[str] = ()) -> str:
    """An error's message in one line, as whoever gave these ``arguments`` reads it.

    Hydra and OmegaConf spread a mistake over lines and causes; the cause says what was wrong with the value.
    """
    message = " ".join(in_options(str(error)).split())
    # Hydra recommends a plus sign, which would add an option that nothing reads, and its own pages.
    message = re.sub(r"(To append to your \w+( \w+)? use|See https:) ?\S+.*", "", message).rstrip(". ")
    if isinstance(error, HydraException) and isinstance(error.__cause__, OmegaConfBaseException):
        reason = str(error.__cause__).splitlines()[0]
        message = f"{message}: {reason}" if reason not in message else message
    unfit = re.search(r"while composing config: Key '\w+' not in '(\w+)'.*full_key: ([\w.]+)", message)
    if unfit:
        setter = _bundle_with(unfit[2], arguments) or "this recipe"
        return f"{unfit[2]}: {setter} sets it, and {_choice(unfit[1])} has no such option; choose another part"
    return message or type(error).__name__


def _bundle_with(option: str, arguments: Sequence[str]) -> str | None:
    """The argument, such as ``layout=per_agent``, that chooses several options under one name, this one among them."""
    for argument in arguments:
        folder, _, name = argument.partition("=")
        if folder in ("layout", "preset") and name in options_of(folder):
            settings = OmegaConf.load(CONF / folder / f"{name}.yaml")
            if OmegaConf.select(settings, option) is not None:
                return argument
    return None


def _choice(config: str) -> str:
    """What chooses the part whose configuration is of the class ``config``."""
    names = {chosen.__name__: name for chosen_by_name in CHOICES.values() for name, chosen in chosen_by_name.items()}
    return names.get(config, config)
