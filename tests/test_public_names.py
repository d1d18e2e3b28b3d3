"""Every public name says what it is and shows it in an example, and every example of the package runs."""

from __future__ import annotations

import doctest
import functools
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torchrl.collectors
import torchrl.data
import torchrl.envs
import torchrl.modules
import torchrl.objectives
import torchrl.objectives.multiagent
import torchrl.objectives.utils

import ctde_kit

FACES = [
    "ctde_kit",
    "ctde_kit.recipes",
    "ctde_kit.modules",
    "ctde_kit.objectives",
    "ctde_kit.data",
    "ctde_kit.collectors",
    "ctde_kit.training",
    "ctde_kit.training.reporting",
    "ctde_kit.graph",
    "ctde_kit.envs.vmas",
    "ctde_kit.envs.workers",
    "ctde_kit.envs.pettingzoo",
    "ctde_kit.envs.games",
    "ctde_kit.envs.transforms",
    "ctde_kit.testing",
    "ctde_kit.distributed",
]
# Modules that need a package of an extra to be imported; their faces do not.
EXTRAS = {"ctde_kit.envs.smax.battles": "jaxmarl", "ctde_kit.envs.smax.exchange": "jaxmarl"}
TORCHRL = [
    torchrl.collectors,
    torchrl.data,
    torchrl.envs,
    torchrl.modules,
    torchrl.objectives,
    torchrl.objectives.multiagent,
    torchrl.objectives.utils,
]


def public() -> dict[str, Any]:
    """All public classes and functions by ``face.name``; packages and ``__version__`` are not among them."""
    names = {f"{face}.{name}": getattr(module, name) for face, module in faces() for name in module.__all__}
    return {name: value for name, value in names.items() if inspect.isclass(value) or inspect.isroutine(value)}


def faces() -> list[tuple[str, Any]]:
    return [(face, importlib.import_module(face)) for face in FACES]


@functools.cache
def places_of_public_names() -> set[str]:
    return {f"{value.__module__}.{value.__qualname__}" for value in public().values()}


def needs_no_example(value: Any) -> bool:
    """Exceptions are shown by what raises them, and a protocol by what has it."""
    return inspect.isclass(value) and (issubclass(value, BaseException) or getattr(value, "_is_protocol", False))


def beginning(value: Any) -> str:
    """The first line, and the paragraph behind it."""
    return "\n\n".join((inspect.getdoc(value) or "").split("\n\n")[:2])


def modules() -> list[str]:
    """All modules of the installed package; folders of YAML files hold no code."""
    found = [info.name for info in pkgutil.walk_packages(ctde_kit.__path__, "ctde_kit.")]
    return ["ctde_kit", *(name for name in found if not name.startswith("ctde_kit.recipes.conf."))]


def test_every_public_name_says_in_one_line_what_it_is() -> None:
    # A dataclass without a docstring gets its signature as one.
    lines = {name: (value.__doc__ or "").partition("\n")[0].strip() for name, value in public().items()}
    wrong = {
        name: line
        for name, line in lines.items()
        if not line.endswith(".") or line.startswith(f"{name.rpartition('.')[2]}(")
    }
    assert not wrong


def test_every_public_name_has_an_example() -> None:
    missing = [
        name for name, value in public().items() if not needs_no_example(value) and ">>> " not in (value.__doc__ or "")
    ]
    assert not missing


def test_names_that_torchrl_has_too_say_how_ours_differ() -> None:
    silent = [
        name
        for name, value in public().items()
        if any(hasattr(module, name.rpartition(".")[2]) for module in TORCHRL) and "TorchRL" not in beginning(value)
    ]
    assert not silent


@pytest.mark.parametrize("name", modules())
def test_the_examples_of_a_module_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A public name's example can be pasted: it imports all that it uses. Others see what their module sees."""
    if name in EXTRAS:
        pytest.importorskip(EXTRAS[name], reason=f"the module is for those who have {EXTRAS[name]}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    runner, report = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS), []
    for example in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name), name):
        if example.name in places_of_public_names():
            example.globs = {"__name__": "__main__"}
        torch.manual_seed(0)
        runner.run(example, out=report.append)
    assert runner.failures == 0, "".join(report)


def test_a_name_that_lives_elsewhere_is_said_where_it_is() -> None:
    with pytest.raises(AttributeError, match=r"'MASACLoss'; did you mean ctde_kit\.objectives\.MASACLoss\?"):
        _ = ctde_kit.MASACLoss
    assert ctde_kit.recipes.HAPPOConfig.__name__ == "HAPPOConfig"
    with pytest.raises(AttributeError, match=r"'HAPPOConfig'; did you mean ctde_kit\.recipes\.HAPPOConfig\?"):
        _ = ctde_kit.HAPPOConfig
    with pytest.raises(AttributeError, match=r"'MAPPOLos'; did you mean MAPPOLoss\?"):
        _ = ctde_kit.MAPPOLos


def test_asking_for_a_name_loads_nothing() -> None:
    program = (
        "import sys, ctde_kit\nfrom ctde_kit import errors, recipes\n"
        "print(hasattr(ctde_kit, 'nothing'), hasattr(ctde_kit, 'MASACLoss'), 'torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False", "False"]
