"""The software and the machine of a run: versions, processor, threads."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from ctde_kit.cores import usable_cores
from ctde_kit.files import JsonObject

PACKAGES = ("ctde-kit", "torch", "torchrl", "tensordict", "vmas", "numpy")


def software_and_machine() -> JsonObject:
    """Versions of Python and of the packages that compute, the machine, and how many threads torch uses.

    >>> from ctde_kit.training.facts import software_and_machine
    >>> facts = software_and_machine()
    >>> sorted(facts), facts["versions"]["torch"] == torch.__version__
    (['machine', 'threads', 'versions'], True)
    """
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "machine": {
            "system": f"{platform.system()} {platform.release()}",
            "processor": _processor(),
            "cores": usable_cores(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "threads": torch.get_num_threads(),
    }


def _version(package: str) -> str | None:
    if package == "torch":
        return str(torch.__version__)  # with the build, such as +cpu
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
