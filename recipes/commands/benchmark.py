"""``ctde benchmark``: recipes x tasks x seeds from one command, run side by side and resumed where they stopped."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import yaml

from ctde_kit.cores import usable_cores
from ctde_kit.errors import RunStopped, UserError
from ctde_kit.recipes.commands.application import compose
from ctde_kit.recipes.commands.arguments import close_choices, has_several_values, in_same_folder
from ctde_kit.recipes.commands.ignored import check_read
from ctde_kit.recipes.commands.loading import read_config
from ctde_kit.recipes.commands.options import CONF, Options, options_of
from ctde_kit.recipes.commands.own_tasks import run_task, with_own_task
from ctde_kit.recipes.commands.recipes import RECIPES
from ctde_kit.recipes.commands.train import checked_overrides, recipe_config
from ctde_kit.recipes.configs.benchmark_options import FILE_KEYS, BenchmarkOptions
from ctde_kit.recipes.configs.data import read_data, to_data
from ctde_kit.recipes.configs.recipe import RecipeConfig, has_field
from ctde_kit.recipes.studies.benchmark.plan import PLAN_FILE, Plan, PlannedRun, Status

PROGRAM = "ctde benchmark"
COMMAND_KEYS = (*FILE_KEYS, "output", "jobs", "minutes", "retry")
# A run and the benchmark that goes on with it may differ in these, which change nothing in what the run learns.
MAY_DIFFER = ("device", "compile", "threads", "logger")
WORKERS = "n_workers"
HELP = f"""\
{PROGRAM}: every recipe on every task with every seed, each a run of its own, side by side.

Examples
  {PROGRAM} benchmark=matrix output=b
  {PROGRAM} benchmark=vmas_small output=b jobs=2 minutes=150
  {PROGRAM} recipes=mappo,qmix tasks=vmas/balance,vmas/wheel seeds=0,1,2 total_frames=120000 output=b
  {PROGRAM} benchmark=mine.yaml output=b
  ctde report b output=r

Options (NAME=VALUE)
  benchmark   a file of recipes, tasks, seeds, options and bounds, or one of: {{benchmarks}}
  recipes     names; in a file also LABEL: RECIPE OPTION=VALUE ..., for several variants of one recipe
  tasks       names; in a file also TASK: OPTION=VALUE ...
  seeds       of each recipe on each task; by default {{seeds}}
  output      the directory of all runs, TASK/RECIPE/seed_SEED below it
  jobs        runs at a time, each with its share of the cores; by default one per core
  minutes     a budget; what is in progress is stopped then, and the same command goes on
  retry       true: run what failed before once more
  any option of the recipes, such as total_frames=120000 or evaluation.absolute=true, for all runs

Runs that have ended are kept. Runs that were stopped go on from their checkpoints. Runs that failed are named and
skipped.
"""


def benchmark(arguments: list[str]) -> None:
    """Do what the command line of ``ctde benchmark`` says."""
    options = read_options(arguments)
    if options is None:
        print(HELP.format(benchmarks=", ".join(options_of("benchmark")), seeds=BenchmarkOptions().seeds), end="")
        return
    plan = planned(options)
    run_all(plan, options)


def read_options(arguments: list[str]) -> BenchmarkOptions | None:
    """The options of a command line; ``None`` where it asks for help.

    Raises:
        UserError: for mistakes in it.
    """
    if any(argument in ("-h", "--help") for argument in arguments):
        return None
    options, for_recipes = BenchmarkOptions(), []
    given = [argument.partition("=") for argument in arguments]
    for name, separator, value in given:
        if not separator or name.startswith("-"):
            raise UserError(f"{name}: expected NAME=VALUE; `{PROGRAM} --help` lists them")
        if name == "benchmark":
            for key, content in _file(value).items():
                options.update(key, content, f"benchmark={value}")
            _check_bounds(options, f"benchmark={value}")
    for name, _, value in given:
        if name in COMMAND_KEYS:
            options.update(name, value, PROGRAM)
        elif name != "benchmark":
            for_recipes.append(f"{name}={value}")
    options.options = [*options.options, *for_recipes]
    options.check()
    return options


def planned(options: BenchmarkOptions) -> Plan:
    """The runs; each recipe's options are checked on each task before any starts.

    Raises:
        UserError: for unknown names and options, and where a directory holds a run with other options.
    """
    for label, (recipe, *_) in options.recipes.items():
        if recipe not in RECIPES:
            raise UserError(f"recipes: {label}: there is no recipe {recipe!r}{_hint(recipe, RECIPES)}")
    for task in options.tasks:
        if task not in options_of("task") and with_own_task([f"task={task}"]) == [f"task={task}"]:
            raise UserError(f"tasks: there is no task {task!r}{_hint(task, options_of('task'))}")
    assert options.output is not None
    output = options.output.absolute()
    plan = Plan(options.recipes, options.tasks, options.seeds, options.options, output)
    configs: dict[tuple[str, str], RecipeConfig] = {}
    with_workers = set()
    for run in plan.runs():
        if (run.label, run.task) not in configs:
            configs[run.label, run.task] = _composed(run)
        config = configs[run.label, run.task]
        if has_field(type(config.task), WORKERS) and getattr(config.task, WORKERS) is None:
            with_workers.add(run.task)
        _check_directory(run, replace(config, seed=run.seed))
    share = [f"task.{WORKERS}={options.threads}"]
    return replace(
        plan, tasks={task: [*given, *(share if task in with_workers else [])] for task, given in plan.tasks.items()}
    )


def run_all(plan: Plan, options: BenchmarkOptions) -> None:
    """Run what has not ended, and show how it goes.

    Raises:
        UserError: in the end, naming the runs that failed.
        RunStopped: where the user stopped it.
    """
    # Not before: the lock's package loads torch.
    from ctde_kit.recipes.studies.benchmark.job_queue import JobQueue
    from ctde_kit.recipes.studies.benchmark.progress_table import Progress
    from ctde_kit.training.run_lock import sole_writer

    started, runs = time.monotonic(), list(plan.runs())
    todo = [run for run in runs if run.status is not Status.ENDED]
    passed_over = [] if options.retry else [run for run in todo if run.status is Status.FAILED]
    progress = Progress(runs)
    queue = JobQueue(options.jobs or usable_cores(), options.threads, watch=progress)
    deadline = None if options.minutes is None else started + 60 * options.minutes
    with sole_writer(plan.output):
        _write_plan(plan, options.bounds)
        try:
            finished = queue.work([run for run in todo if run not in passed_over], deadline)
        except KeyboardInterrupt as interrupt:
            raise RunStopped("stopped; the same command goes on", signal.SIGINT) from interrupt
        finally:
            progress.close()
    if not finished:
        print(f"{options.minutes:g} minutes are over; the same command goes on")
    _report_failures([*passed_over, *queue.failed])
    print(f"next: ctde report {plan.output} output={plan.output / 'report'}")


def _report_failures(failed: list[PlannedRun]) -> None:
    for run in failed:
        print(f"failed: {run.name}")
        print("".join(f"  {line}\n" for line in run.failure.read_text().splitlines()), end="")
        print(f"  log: {run.log}")
    if failed:
        names = ", ".join(run.name for run in failed)
        raise UserError(f"{len(failed)} failed: {names}; mend the cause, and repeat the command with retry=true")


def _file(name: str) -> Mapping[str, object]:
    """The options in a benchmark's file; ``name`` is one of the kit's benchmarks, or a path."""
    known = options_of("benchmark")
    path = CONF / "benchmark" / f"{name}.yaml" if name in known else Path(name)
    if not path.is_file():
        raise UserError(f"benchmark={name}: there is no such benchmark, nor such a file{_hint(name, known)}")
    content = read_data(path)
    unknown = sorted(content.keys() - {*FILE_KEYS})
    if unknown:
        raise UserError(f"benchmark={name}: {unknown[0]}: expected one of {', '.join(FILE_KEYS)}")
    return content


def _check_bounds(options: BenchmarkOptions, source: str) -> None:
    """Raise ``UserError`` where a file has bounds of a task that is not among its own."""
    known = {name for task in options.tasks for name in _names(task)}
    unknown = [task for task in options.bounds if options.tasks and task not in known]
    if unknown:
        raise UserError(
            f"{source}: bounds: {unknown[0]}: expected a task of the file{_hint(unknown[0], options.tasks)}"
        )


def _hint(name: str, known: Iterable[str]) -> str:
    names = list(known)
    close = close_choices(name, names)
    within = ", ".join(in_same_folder(name, names))
    return f"; did you mean {' or '.join(close)}?" if close else f"; expected one of {within}"


def _composed(run: PlannedRun) -> RecipeConfig:
    """The checked configuration of a run."""
    for option in filter(has_several_values, run.options):
        raise UserError(
            f"{option}: each run has one value (a list stands in brackets, [64,64]); write variants in a file, as in "
            f"`recipes: {{FIRST: {run.recipe} OPTION=VALUE, SECOND: ...}}`"
        )
    options = Options.of(RECIPES[run.recipe].config, run.recipe)
    overrides = checked_overrides(run.recipe, options, [f"task={run.task}", *run.options])
    config = recipe_config(compose(run.recipe, overrides))
    check_read(config, overrides)
    if config.algorithm != run.recipe:
        raise UserError(f"recipes: {run.label}: algorithm={config.algorithm}: this is {run.recipe}; name that recipe")
    return config


def _check_directory(run: PlannedRun, config: RecipeConfig) -> None:
    """Raise ``UserError`` where the run's directory holds one with other options."""
    if not (run.directory / "config.yaml").exists():
        return
    saved = read_config(run.directory)
    ours, theirs = to_data(config), to_data(saved)
    for data in (ours, theirs):
        data["task"].pop(WORKERS, None)
    differing = sorted(name for name in ours if name not in MAY_DIFFER and ours[name] != theirs.get(name))
    if differing:
        name = differing[0]
        raise UserError(
            f"{run.directory} holds a run with {name}={theirs.get(name)}, this benchmark has {ours[name]}; "
            "choose another output"
        )


def _names(task: str) -> tuple[str, str]:
    """What a task of the file and its runs are called."""
    return task, run_task(task)


def _write_plan(plan: Plan, bounds: Mapping[str, tuple[float, float]]) -> None:
    content = {
        "recipes": {label: " ".join(line) for label, line in plan.recipes.items()},
        "tasks": {task: " ".join(options) for task, options in plan.tasks.items()},
        "seeds": plan.seeds,
        "options": plan.options,
        # By the name that runs have, which is another one for code of the user's own.
        "bounds": {
            run_task(task): list(bounds[name]) for task in plan.tasks for name in _names(task) if name in bounds
        },
    }
    (plan.output / PLAN_FILE).write_text(yaml.safe_dump(content, sort_keys=False))
