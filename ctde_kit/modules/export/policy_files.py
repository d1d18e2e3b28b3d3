"""Writes one-step greedy policies as ONNX or ``torch.export`` files, and loads what was written."""

from __future__ import annotations

import contextlib
import importlib
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ctde_kit.errors import UserError
from ctde_kit.modules.export.greedy_step import GreedyStep

FORMATS = ("onnx", "pt2")
# Not 1: an exporter would take a size of 1 as fixed.
EXAMPLE_BATCH = 3

Call = Callable[..., tuple[Tensor, ...]]


def check_installed(form: str) -> None:
    """Raise ``UserError`` if ``form`` is onnx and a package that it needs is missing."""
    if form != "onnx":
        return
    try:
        for package in ("onnx", "onnxruntime", "onnxscript"):
            importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"form='onnx': needs the package {error.name}; pip install \"ctde-kit[onnx]\", or use form='pt2'"
        ) from error


def write_policy(step: GreedyStep, path: Path, form: str) -> Call:
    """Write ``step`` to ``path``, and return the loaded file as a function of tensors, as other programs would call it.

    Args:
        step: the policy of one agent; the file takes batches of any size.
        path: of the file; its directory exists.
        form: onnx or pt2.

    >>> import tempfile
    >>> import ctde_kit as ck
    >>> from ctde_kit.modules.export.greedy_step import GreedyStep
    >>> group = ck.TeamSpec.from_env(ck.VmasEnv("navigation", num_envs=2))["agents"]
    >>> actor = ck.MultiAgentActor(group, ck.own_observation(group), ck.MultiAgentMLP(18, 4, group.n_agents))
    >>> call = write_policy(GreedyStep(actor, agent=0), Path(tempfile.mkdtemp()) / "agents.pt2", "pt2")
    >>> call(torch.zeros(7, 18))[0].shape
    torch.Size([7, 2])
    """
    example = tuple(port.zeros(EXAMPLE_BATCH) for port in step.inputs)
    batch = torch.export.Dim("batch", min=1)
    shapes = {"tensors": tuple({0: batch} for _ in example)}
    with _quiet(), torch.no_grad():
        program = torch.export.export(step.eval(), example, dynamic_shapes=shapes)
        if form == "pt2":
            torch.export.save(program, path)
        else:
            _write_onnx(program, step, path)
    return _load_pt2(path) if form == "pt2" else _load_onnx(path, [port.name for port in step.inputs])


def _write_onnx(program: torch.export.ExportedProgram, step: GreedyStep, path: Path) -> None:
    written = torch.onnx.export(
        program,
        dynamo=True,
        input_names=[port.name for port in step.inputs],
        output_names=[port.name for port in step.outputs],
        verbose=False,
    )
    assert written is not None  # it is where `dynamo` is true
    written.save(path, external_data=False)


def _load_pt2(path: Path) -> Call:
    module = torch.export.load(path).module()

    def call(*tensors: Tensor) -> tuple[Tensor, ...]:
        return module(*tensors)

    return call


def _load_onnx(path: Path, names: Sequence[str]) -> Call:
    import onnxruntime

    session = onnxruntime.InferenceSession(path)

    def call(*tensors: Tensor) -> tuple[Tensor, ...]:
        found: Any = session.run(None, {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)})
        return tuple(torch.from_numpy(value) for value in found)

    return call


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses the exporter's warnings about packages that nothing here uses and about its own deprecated parts."""
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
