"""``ctde compare``: runs of one task side by side, one curve for those that differ in their seed alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ctde_kit.errors import UserError
from ctde_kit.files import JsonObject

if TYPE_CHECKING:
    from ctde_kit.recipes.studies.report.document import Table

PROGRAM = "ctde compare"
HELP = f"""\
{PROGRAM}: compare runs of one task: curves with bands over seeds, a table, the probability of improvement.

Examples
  {PROGRAM} RUN_DIR RUN_DIR output=c
  {PROGRAM} runs/mappo/vmas/navigation/SWEEP_DIR output=c

Arguments
  RUN_DIR ... run directories, or directories that hold them, such as a sweep's
  output      the directory of the page; one that is there already is written anew

Runs that differ in their seed alone are one curve, named after the recipe and the options in which the recipe's runs
differ. Runs that have not ended are left out, and named. What else a reader of the figures must know is printed, too.
Several tasks on one page: `ctde report`.
"""


def compare(arguments: list[str]) -> None:
    """Do what the command line of ``ctde compare`` says.

    Raises:
        UserError: for mistakes in it.
    """
    if any(argument in ("-h", "--help") for argument in arguments):
        print(HELP, end="")
        return
    sources = [Path(argument) for argument in arguments if _is_path(argument)]
    options = [argument for argument in arguments if not _is_path(argument)]
    outputs = [option.removeprefix("output=") for option in options if option.startswith("output=")]
    for option in options:
        if not option.startswith("output="):
            raise UserError(f"{option}: there is no such option; {PROGRAM} takes directories and output=DIR")
    if not sources or not outputs or not outputs[-1]:
        raise UserError(
            f"expected directories of runs and where the page goes, as in {PROGRAM} RUN_DIR RUN_DIR output=c"
        )
    # Not before: what follows loads torch and matplotlib.
    from ctde_kit.recipes.studies.report.settings import read_by_settings
    from ctde_kit.recipes.studies.report.settings_page import write_comparison

    found = read_by_settings(sources, read_options)
    try:
        written = write_comparison(found, Path(outputs[-1]), command=" ".join([PROGRAM, *arguments]))
    except OSError as error:
        raise UserError(f"output={outputs[-1]} cannot be written ({error.strerror}); choose another") from error
    for sentence in written.caveats:
        print(sentence.replace("`", ""))
    for task, of_task in written.tables.items():
        print(task)
        for table in of_task:
            _print(table)
    for path in written.paths:
        print(f"  {path}")


def _is_path(argument: str) -> bool:
    """A path may hold an equals sign, as the directories of sweeps do."""
    return not argument.startswith(("-", "output=")) and ("=" not in argument.split("/")[0] or Path(argument).exists())


def read_options(run: Path) -> JsonObject:
    """All options of a run, defaults included; a user's own environment is named by the SHA-256 of its code."""
    from ctde_kit.recipes.commands.loading import read_config
    from ctde_kit.recipes.configs.data import to_data
    from ctde_kit.recipes.wiring.saved_runs import SavedRun

    options, environment = to_data(read_config(run)), SavedRun(run).environment
    options["task"] |= {name: value for name, value in environment.items() if name != "name"}
    return options


def _print(table: Table) -> None:
    lines = [table.head, *table.rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.head))]
    for line in lines:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
