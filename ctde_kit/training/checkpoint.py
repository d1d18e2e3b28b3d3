"""Checkpoints: written beside and renamed, checked when read."""

from __future__ import annotations

import dataclasses
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ctde_kit.errors import UserError
from ctde_kit.protocols import Stateful
from ctde_kit.training.parts import Parts

FORMAT = 1


def save_checkpoint(path: Path, parts: Parts, *, algorithm: str, frames: int) -> None:
    """Write the state of all parts and of the program's random generators.

    The file is written beside ``path`` and renamed, so that a kill in the middle leaves the previous one whole.

    Args:
        path: of the file; its directory exists.
        parts: every field with a ``state_dict`` is saved.
        algorithm: the recipe's name, checked on loading.
        frames: collected so far.

    Raises:
        UserError: where it cannot be written; the checkpoints before are left as they are.
    """
    states = {name: part.state_dict() for name, part in _stateful(parts).items()}
    content = {
        "format": FORMAT,
        "algorithm": algorithm,
        "frames": frames,
        "parts": states,
        "random": _random_state(),
    }
    beside = path.with_suffix(".partial")
    try:
        with open(beside, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except (OSError, RuntimeError) as error:  # torch.save gives its own error for a disk that is full
        beside.unlink(missing_ok=True)
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"checkpoint {path} cannot be written ({reason}): free some space and resume the run"
        ) from error


def read_checkpoint(path: Path, *, algorithm: str) -> dict[str, Any]:
    """The content of a checkpoint.

    Raises:
        UserError: where the file is missing, truncated, no checkpoint, or another algorithm's.
    """
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}: give a run directory that has one in checkpoints/")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in as many ways as there are bytes
        raise UserError(
            f"checkpoint {path} is truncated or not a checkpoint: delete it to use the one before, if there is one"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"checkpoint {path} is of another format: expected {FORMAT}; train anew or use its version")
    if content["algorithm"] != algorithm:
        raise UserError(
            f"checkpoint {path} is of algorithm {content['algorithm']!r}, expected {algorithm!r}: "
            f"resume it with ctde-{content['algorithm']}"
        )
    return content


def load_parts(content: dict[str, Any], parts: Parts) -> int:
    """Restore all parts and the random generators; gives the frames collected so far.

    Raises:
        UserError: where the checkpoint's parts or shapes are not these parts'.
    """
    stateful = _stateful(parts)
    if stateful.keys() != content["parts"].keys():
        raise UserError(
            f"the checkpoint has the parts {sorted(content['parts'])}, this run {sorted(stateful)}: build it alike"
        )
    for name, part in stateful.items():
        try:
            part.load_state_dict(content["parts"][name])
        except (RuntimeError, KeyError, ValueError) as error:
            first_line = " ".join(str(error).split())[:300]
            raise UserError(f"the checkpoint's {name!r} does not fit this run: {first_line}") from error
    _restore_random_state(content["random"])
    return content["frames"]


def checkpoint_paths(directory: Path) -> list[Path]:
    """The checkpoints in ``directory``, those with the fewest frames first."""
    return sorted(directory.glob("frames_*.pt"), key=lambda path: int(path.stem.rsplit("_", 1)[-1]))


def latest_checkpoint(directory: Path) -> Path:
    """The checkpoint with the most frames in ``directory``.

    Raises:
        UserError: where there is none.
    """
    paths = checkpoint_paths(directory)
    if not paths:
        raise UserError(f"no checkpoint in {directory}: the run was stopped before its first one; start it anew")
    return paths[-1]


def _stateful(parts: Parts) -> dict[str, Stateful]:
    values = {field.name: getattr(parts, field.name) for field in dataclasses.fields(parts)}
    return {name: value for name, value in values.items() if isinstance(value, Stateful)}


def _random_state() -> dict[str, Any]:
    kind, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": (kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest),
        "python": random.getstate(),
    }


def _restore_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    random.setstate(state["python"])
