"""``ctde report``: a page that compares the runs of directories."""

from __future__ import annotations

from pathlib import Path

from ctde_kit.errors import UserError

PROGRAM = "ctde report"
HELP = f"""\
{PROGRAM}: compare the runs in directories: one HTML page, the same in Markdown, and all runs in marl-eval's format.

Examples
  {PROGRAM} b output=r
  {PROGRAM} b BENCHMARL/multirun output=r
  {PROGRAM} b output=r bounds.vmas/navigation=[0,1.2]

Arguments
  DIR ...     directories with runs below them, or with files in marl-eval's format, such as BenchMARL's
  output      the directory of the page; one that is there already is written anew
  bounds.TASK the returns on TASK that count as 0 and 1; by default those of the benchmark
              (benchmark.yaml), else the lowest and highest of any evaluation

Runs that have not ended are left out, and named. What else the figures leave out is printed, too.
"""


def report(arguments: list[str]) -> None:
    """Do what the command line of ``ctde report`` says.

    Raises:
        UserError: for mistakes in it.
    """
    if any(argument in ("-h", "--help") for argument in arguments):
        print(HELP, end="")
        return
    options = {name: value for name, separator, value in map(_split, arguments) if separator}
    sources = [Path(argument) for argument in arguments if not _split(argument)[1]]
    bounds = {name.removeprefix("bounds."): _bounds(name, options.pop(name)) for name in [*options] if "." in name}
    output = options.pop("output", "")
    if options or any(argument.startswith("-") for argument in arguments):
        wrong = next(iter(options), None) or next(part for part in arguments if part.startswith("-"))
        raise UserError(f"{wrong}: there is no such option; {PROGRAM} takes directories, output=DIR and bounds.TASK")
    if not sources or not output:
        raise UserError(f"expected directories of runs and where the page goes, as in {PROGRAM} b output=r")
    # Not before: what follows loads torch and matplotlib.
    from ctde_kit.recipes.studies.report.comparison_page import write_report
    from ctde_kit.recipes.studies.report.sources import read_sources

    command = " ".join([PROGRAM, *arguments])
    paths, caveats = write_report(read_sources(sources), Path(output), command=command, bounds=bounds)
    for sentence in caveats:
        print(sentence.replace("`", ""))
    for path in paths:
        print(f"  {path}")


def _split(argument: str) -> tuple[str, str, str]:
    """An option's name and value, as `partition` gives them; a path may hold an equals sign after a slash."""
    name, separator, value = argument.partition("=")
    is_path = "/" in name and not name.startswith("bounds.")
    return ("", "", "") if is_path else (name, separator, value)


def _bounds(name: str, value: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in value.strip("[]()").split(","))
    except ValueError:
        low, high = 0.0, 0.0
    if not name.startswith("bounds.") or not low < high:
        raise UserError(f"{name}={value}: expected bounds.TASK=[LOW,HIGH], two numbers")
    return low, high
