"""Checkpoints: the state of a run's parts and random generators, written whole or not at all, verified when read."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Sequence
from pathlib import Path

import torch

from ctde_kit.errors import UserError, one_line
from ctde_kit.files import replacing, seal_holds
from ctde_kit.protocols import StateDict, Stateful
from ctde_kit.training.parts import Parts
from ctde_kit.training.random_state import random_state, restore_random_state

FORMAT = 2
# Other files in the directory of checkpoints, the best policies' and a user's own, are left alone.
NAME = re.compile(r"frames_(0|[1-9][0-9]*)\.pt")
# An entry of checkpoints whose callbacks have a state.
ON_ITERATION = "on_iteration"
CONTENT = {"format", "algorithm", "frames", "rows", "parts", "random"}


def save_checkpoint(
    path: Path | str,
    parts: Parts,
    *,
    algorithm: str,
    frames: int,
    rows: Sequence[tuple[int, int]] = (),
    on_iteration: object = None,
) -> None:
    """Write the state of all parts, of callbacks, and of the program's random generators to one file.

    It is written beside ``path`` and then renamed, so that a program killed in the middle leaves earlier checkpoints
    intact. Its last line is the SHA-256 of the rest.

    Args:
        path: of the file; its directory exists.
        parts: every part with a ``state_dict`` is saved.
        algorithm: name of the recipe, compared when the checkpoint is loaded.
        frames: collected so far.
        rows: of ``metrics.csv`` so far, as ``RunDirectory.sync_rows`` returns them; a resumed run must find them again.
        on_iteration: what the run calls after each iteration; saved where it has a ``state_dict``.

    Raises:
        UserError: if the file cannot be written; earlier checkpoints are not touched.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from ctde_kit.recipes import MatrixTask, QMIXConfig
    >>> from ctde_kit.training import latest_checkpoint, save_checkpoint
    >>> parts = QMIXConfig(task=MatrixTask(n_envs=2)).build()
    >>> directory = Path(tempfile.mkdtemp())
    >>> save_checkpoint(directory / "frames_0.pt", parts, algorithm="qmix", frames=0)
    >>> latest_checkpoint(directory).name
    'frames_0.pt'
    """
    states = {name: part.state_dict() for name, part in stateful_parts(parts).items()}
    content = {
        "format": FORMAT,
        "algorithm": algorithm,
        "frames": frames,
        "rows": torch.tensor(rows, dtype=torch.int64).reshape(-1, 2),
        "parts": states,
        "random": random_state(),
    }
    if isinstance(on_iteration, Stateful):
        content[ON_ITERATION] = on_iteration.state_dict()
    write_content(Path(path), content)


def write_content(path: Path, content: StateDict) -> None:
    """Write tensors and plain values to a sealed file, whole or not at all.

    Raises:
        UserError: if the file cannot be written; an earlier one is not touched.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from ctde_kit.training.checkpoint import write_content
    >>> path = Path(tempfile.mkdtemp()) / "best.pt"
    >>> write_content(path, {"frames": 600})
    >>> path.is_file()
    True
    """
    try:
        with replacing(path, sealed=True) as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:  # torch.save raises a RuntimeError on a full disk
        reason = one_line(error, 200)
        raise UserError(
            f"checkpoint {path} cannot be written ({reason}): free some space and resume the run"
        ) from error


def read_checkpoint(path: Path | str, *, algorithm: str, keys: Collection[str] = CONTENT) -> StateDict:
    """The content of a checkpoint file, as ``load_parts`` takes it.

    Its checksum is compared before anything in it is read, and nothing but tensors and plain values is ever built.

    Args:
        path: of the file.
        algorithm: name of the recipe that must have written it.
        keys: the entries that it must hold.

    Raises:
        UserError: if the file is missing, damaged, not a checkpoint, or one of another algorithm.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from ctde_kit.recipes import MatrixTask, QMIXConfig
    >>> from ctde_kit.training import read_checkpoint, save_checkpoint
    >>> path = Path(tempfile.mkdtemp()) / "frames_600.pt"
    >>> save_checkpoint(path, QMIXConfig(task=MatrixTask(n_envs=2)).build(), algorithm="qmix", frames=600)
    >>> sorted(read_checkpoint(path, algorithm="qmix")["parts"])
    ['buffer', 'collector', 'policy', 'prepare', 'update', 'update_schedule']
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}: give a run directory that has one in checkpoints/")
    try:
        with open(path, "rb") as file:
            whole = seal_holds(file)
            content = torch.load(file, map_location="cpu", weights_only=True) if whole else None
    except OSError as error:
        raise UserError(f"checkpoint {path} cannot be read ({error.strerror})") from error
    except Exception as error:  # a file that no run wrote can raise almost any exception
        raise UserError(f"{path} is not a checkpoint: it holds more than tensors and plain values") from error
    if content is None:
        raise UserError(
            f"checkpoint {path} is damaged, truncated, or not a checkpoint of this version (its SHA-256 does not "
            "hold): delete it to use the one before, if there is one"
        )
    if not isinstance(content, dict) or content.get("format") != FORMAT or not content.keys() >= {*keys}:
        raise UserError(
            f"checkpoint {path} is of another format: expected {FORMAT}; train again, or use the "
            "version of ctde_kit that wrote it"
        )
    if content["algorithm"] != algorithm:
        raise UserError(
            f"checkpoint {path} is of algorithm {content['algorithm']!r}, expected {algorithm!r}: "
            f"pass algorithm={content['algorithm']!r}"
        )
    return content


def load_parts(content: StateDict, parts: Parts, *, on_iteration: object = None) -> int:
    """Restore all parts and the random generators; returns the frames collected so far.

    Args:
        content: of the checkpoint, as ``read_checkpoint`` returns it.
        parts: of a run with the same configuration.
        on_iteration: what the run will call after each iteration; restored, too, where it has a ``load_state_dict``.

    Raises:
        UserError: if the checkpoint has other parts or callbacks, or tensors of other shapes.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from ctde_kit.recipes import MatrixTask, QMIXConfig
    >>> from ctde_kit.training import load_parts, read_checkpoint, save_checkpoint
    >>> config = QMIXConfig(task=MatrixTask(n_envs=2))
    >>> path = Path(tempfile.mkdtemp()) / "frames_600.pt"
    >>> save_checkpoint(path, config.build(), algorithm="qmix", frames=600)
    >>> load_parts(read_checkpoint(path, algorithm="qmix"), config.build())
    600
    """
    stateful = stateful_parts(parts)
    if stateful.keys() != content["parts"].keys():
        raise UserError(
            f"the checkpoint has the parts {sorted(content['parts'])}, this run {sorted(stateful)}: "
            "build the run with the same configuration"
        )
    states = content["parts"]
    if isinstance(on_iteration, Stateful):
        stateful[ON_ITERATION] = on_iteration
        states = {**states, ON_ITERATION: content.get(ON_ITERATION, {})}
    for name, part in stateful.items():
        try:
            part.load_state_dict(states[name])
        except (RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
            first_line = one_line(error, 300)
            raise UserError(f"the checkpoint's {name!r} does not fit this run: {first_line}") from error
    restore_random_state(content["random"])
    return content["frames"]


def checkpoint_path(directory: Path, frames: int) -> Path:
    """Where the checkpoint after so many frames is in ``directory``.

    >>> from pathlib import Path
    >>> from ctde_kit.training import checkpoint_path
    >>> checkpoint_path(Path("checkpoints"), 9_000).name
    'frames_9000.pt'
    """
    return directory / f"frames_{frames}.pt"


def frames_of(checkpoint: Path) -> int:
    """After how many frames a checkpoint of that name was written.

    >>> from pathlib import Path
    >>> from ctde_kit.training import checkpoint_path, frames_of
    >>> frames_of(checkpoint_path(Path("checkpoints"), 9_000))
    9000
    """
    return int(checkpoint.stem.rpartition("_")[2])


def checkpoint_paths(directory: Path) -> list[Path]:
    """The checkpoints in ``directory``, sorted by their number of frames; files with other names are not checkpoints.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from ctde_kit.training import checkpoint_paths
    >>> directory = Path(tempfile.mkdtemp())
    >>> for frames in (10_000, 9_000):
    ...     (directory / f"frames_{frames}.pt").touch()
    >>> (directory / "frames_best.pt").touch()
    >>> [path.name for path in checkpoint_paths(directory)]
    ['frames_9000.pt', 'frames_10000.pt']
    """
    found = {path: NAME.fullmatch(path.name) for path in directory.glob("frames_*.pt")}
    return sorted((path for path, name in found.items() if name), key=frames_of)


def latest_checkpoint(directory: Path) -> Path:
    """The checkpoint in ``directory`` with the most frames.

    Raises:
        UserError: if there is none.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from ctde_kit.training import latest_checkpoint
    >>> directory = Path(tempfile.mkdtemp())
    >>> for frames in (10_000, 9_000):
    ...     (directory / f"frames_{frames}.pt").touch()
    >>> latest_checkpoint(directory).name
    'frames_10000.pt'
    """
    paths = checkpoint_paths(directory)
    if not paths:
        raise UserError(f"no checkpoint in {directory}: the run was stopped before its first one; start it again")
    return paths[-1]


def stateful_parts(parts: Parts) -> dict[str, Stateful]:
    """The parts that a checkpoint saves, by their names.

    >>> from ctde_kit.recipes import MatrixTask, QMIXConfig
    >>> from ctde_kit.training import stateful_parts
    >>> list(stateful_parts(QMIXConfig(task=MatrixTask(n_envs=2)).build()))
    ['collector', 'prepare', 'buffer', 'update_schedule', 'update', 'policy']
    """
    values = {field.name: getattr(parts, field.name) for field in dataclasses.fields(parts)}
    return {name: value for name, value in values.items() if isinstance(value, Stateful)}
