"""The test suite at one end of every dependency's range: the table of docs/design.md.

Run ``python -m tests.programs.ranges lowest`` (or ``newest``) in an environment with those versions; ``nox -s ranges``
sets both up. ``constraints`` prints the lowest versions that ``pyproject.toml`` admits, as pip reads them.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

from tests.programs.marked import write_between

ROOT = Path(__file__).parents[2]
PAGE, RESULTS = ROOT / "docs" / "design.md", ROOT / "docs" / "results"
ENDS = ("lowest", "newest")
EXTRAS = ("lbf", "onnx", "report", "sisl", "tensorboard", "video")


def requirements() -> list[Requirement]:
    """What users install: the dependencies, and the extras that the tests need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + [line for extra in EXTRAS for line in project["optional-dependencies"][extra]]
    return [Requirement(line) for line in lines]


def lowest(requirement: Requirement) -> str:
    """The lower end of a range; every range has one."""
    bounds = [bound.version for bound in requirement.specifier if bound.operator == ">="]
    if len(bounds) != 1:
        raise ValueError(f"{requirement}: expected one lower bound")
    return bounds[0]


def constraints() -> str:
    """A constraints file for pip that holds every dependency at the lower end of its range."""
    return "".join(f"{requirement.name}=={lowest(requirement)}\n" for requirement in requirements())


def measure(end: str) -> None:
    """Run the default tests, keep the versions and the outcome, and write the page's table once both ends have one."""
    process = subprocess.run([sys.executable, "-m", "pytest"], cwd=ROOT, text=True, stdout=subprocess.PIPE, check=False)
    print(process.stdout)
    outcome = re.sub(r" in [\d.]+s.*", "", process.stdout.strip().splitlines()[-1].strip("= "))
    versions = {requirement.name: importlib.metadata.version(requirement.name) for requirement in requirements()}
    result = {
        "outcome": outcome,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        "versions": versions,
    }
    result_file(end).write_text(json.dumps(result, indent=1) + "\n")
    if all(path.exists() for path in map(result_file, ENDS)):
        write_between(PAGE, "ranges", table())
    sys.exit(process.returncode)


def result_file(end: str) -> Path:
    """Where the outcome at one end is kept."""
    return RESULTS / f"ranges_{end}.json"


def table() -> str:
    """The two ends side by side, as Markdown."""
    results = [json.loads(result_file(end).read_text()) for end in ENDS]
    rows = [["", *ENDS], ["---"] * 3]
    rows += [[name, *[result["versions"][name] for result in results]] for name in results[0]["versions"]]
    for fact in ("python", "outcome", "date"):
        rows.append([fact, *[result[fact] for result in results]])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


if __name__ == "__main__":
    if sys.argv[1] == "constraints":
        print(constraints(), end="")
    else:
        measure(sys.argv[1])
