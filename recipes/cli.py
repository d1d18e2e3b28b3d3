"""Command lines: hydra with one-line errors, scenario arguments without a plus sign, and resume."""

from __future__ import annotations

import contextlib
import difflib
import os
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import hydra
from ctde_kit.recipes.overrides import expand
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ctde_kit.errors import UserError
from ctde_kit.training import NotFiniteError

# Hydra takes these before the options alone.
MULTIRUN = ("-m", "--multirun")
# Their actors' values are all they have.
WITHOUT_CRITIC = ("qmix", "vdn", "iql", "qplex", "pqn")
OVERRIDABLE_ON_RESUME = ("total_frames", "device", "compile", "logger")


def command_line(algorithm: str) -> Callable[[], None]:
    """The ``main`` of a recipe: mistakes are one line and exit code 2, without a traceback."""
    program = f"ctde-{algorithm}"

    def start_run(cfg: DictConfig, path: Path) -> None:
        from ctde_kit.recipes.running import go_on, start

        if cfg.algorithm != algorithm:
            raise UserError(f"algorithm={cfg.algorithm}: this is {program}; run ctde-{cfg.algorithm}")
        in_study = HydraConfig.get().runtime.choices.get("study") is not None
        if in_study and (path / "config.yaml").exists():
            go_on(cfg, path)
        else:
            start(cfg, path)

    def run(arguments: list[str]) -> None:
        if any(argument.startswith("resume=") for argument in arguments):
            _resume(algorithm, arguments)
        else:
            check_critic(algorithm, arguments)
            overrides = [override for argument in arguments for override in expand(argument)]
            compose_and_run(program, algorithm, overrides, start_run)

    return guarded(program, run, f"; go on with {program} resume=RUN_DIR")


def check_critic(algorithm: str, arguments: list[str]) -> None:
    """Raise ``UserError`` where a critic is chosen for an algorithm that has none."""
    chosen = [part for part in arguments if part.startswith(("critic=", "critic.", "network@critic"))]
    if chosen and algorithm in WITHOUT_CRITIC:
        raise UserError(
            f"{chosen[0]}: ctde-{algorithm} has no critic, its actors' own values are mixed; leave it out and choose a "
            "mixer, or run ctde-mappo (critics of states) or ctde-maddpg (critics of actions)"
        )


def guarded(program: str, run: Callable[[list[str]], None], stopped: str = "") -> Callable[[], None]:
    """A console script: ``run`` takes the arguments; mistakes are one line and exit code 2.

    Args:
        program: its name.
        run: the work.
        stopped: what to say to one who stopped it, after the word.
    """

    def main() -> None:
        """Do what the command line says."""
        try:
            run(sys.argv[1:])
        except (UserError, NotFiniteError, HydraException, OmegaConfBaseException) as error:
            print(f"{program}: error: {_one_line(error)}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print(f"{program}: stopped{stopped}", file=sys.stderr)
            sys.exit(130)

    return main


def compose_and_run(
    program: str, config_name: str, overrides: list[str], run: Callable[[DictConfig, Path], None]
) -> None:
    """Compose the configuration ``config_name`` and call ``run`` with it and its directory, for each job of ``-m``.

    Raises:
        UserError: the last mistake; those of other jobs are printed.
    """
    _register()
    multirun = any(override in MULTIRUN or override.startswith("study=") for override in overrides)
    if multirun and any(override.startswith("hydra.run.dir=") for override in overrides):
        raise UserError("hydra.run.dir: several runs need several directories; use hydra.sweep.dir")
    errors: list[tuple[Path, Exception]] = []

    def job(cfg: DictConfig) -> None:
        path = Path(HydraConfig.get().runtime.output_dir)
        # An exception that leaves the job makes hydra print a line of its own.
        try:
            run(cfg, path)
        except Exception as error:
            errors.append((path, error))
            with contextlib.suppress(OSError):
                path.rmdir()  # only where nothing was written

    # Without this variable hydra prints its mistakes itself, in several lines, and exits with code 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv = [sys.argv[0], *sorted(overrides, key=lambda override: override not in MULTIRUN)]
    try:
        hydra.main(version_base="1.3", config_path="pkg://ctde_kit.recipes.conf", config_name=config_name)(job)()
    except MissingConfigException as error:
        raise _unknown_option(error) from error
    except OSError as error:
        if error.filename is None:
            raise
        directory = "hydra.sweep.dir" if multirun else "hydra.run.dir"
        raise UserError(f"{error.filename} cannot be written ({error.strerror}): choose another {directory}") from error
    if errors:
        for path, error in errors[:-1]:
            print(f"{program}: error: {path.name}: {_one_line(error)}", file=sys.stderr)
        raise errors[-1][1]


def compose(config_name: str, overrides: list[str]) -> DictConfig:
    """The configuration ``config_name`` with these overrides, inside a command or without one."""
    _register()
    if GlobalHydra.instance().is_initialized():
        return hydra.compose(config_name, overrides)
    with hydra.initialize_config_module("ctde_kit.recipes.conf", version_base="1.3"):
        return hydra.compose(config_name, overrides)


def _unknown_option(error: MissingConfigException) -> UserError:
    group, _, name = (error.missing_cfg_file or "").partition("/")
    root = Path(__file__).parent / "conf" / group
    options = sorted(str(path.relative_to(root).with_suffix("")) for path in root.rglob("*.yaml"))
    close = difflib.get_close_matches(name, options, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"choose one of {', '.join(options)}"
    return UserError(f"{group}={name}: there is no such {group}; {hint}")


def _register() -> None:
    from ctde_kit.recipes.schemas import SCHEMAS

    store = ConfigStore.instance()
    for (group, name), node in SCHEMAS.items():
        store.store(group=group, name=name, node=node)
    OmegaConf.register_new_resolver("unique", lambda: uuid.uuid4().hex[:6], replace=True, use_cache=True)


def _resume(algorithm: str, arguments: list[str]) -> None:
    from ctde_kit.recipes.loading import read_config
    from ctde_kit.recipes.running import resume

    values: dict[str, str] = {}
    for argument in arguments:
        name, separator, value = argument.partition("=")
        if not separator or name not in ("resume", *OVERRIDABLE_ON_RESUME):
            raise UserError(
                f"resume takes {', '.join(OVERRIDABLE_ON_RESUME)} beside it, found {argument!r}; start anew instead"
            )
        values[name] = value
    directory = Path(values.pop("resume"))
    cfg = read_config(directory)
    if cfg.algorithm != algorithm:
        raise UserError(f"{directory} is a run of {cfg.algorithm!r}: resume it with ctde-{cfg.algorithm}")
    logger = values.pop("logger", None)
    if logger is not None:
        cfg.logger.name = logger
    if "total_frames" in values:
        try:
            cfg.total_frames = int(values["total_frames"])
        except ValueError as error:
            raise UserError(f"total_frames={values['total_frames']}: expected a whole number of frames") from error
    for name in ("device", "compile"):
        if name in values:
            cfg[name] = values[name]
    resume(cfg, directory)


def _one_line(error: BaseException) -> str:
    """Hydra and OmegaConf spread a mistake over lines and causes; the cause says what was wrong with the value."""
    message = " ".join(str(error).split())
    if isinstance(error, HydraException) and isinstance(error.__cause__, OmegaConfBaseException):
        reason = str(error.__cause__).splitlines()[0]
        message = f"{message}: {reason}" if reason not in message else message
    return message or type(error).__name__
