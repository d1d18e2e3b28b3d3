"""``evaluations.jsonl``: every episode of every evaluation of a run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from ctde_kit.errors import UserError
from ctde_kit.files import JsonObject, replacing


class EvaluationLog:
    """Writes one line per episode, a JSON object: the evaluation's ``frames`` and ``seed``, and the episode's record.

    Args:
        path: of the file; its directory exists.

    >>> from pathlib import Path
    >>> import tempfile
    >>> from ctde_kit.training import EvaluationLog, read_evaluations
    >>> log = EvaluationLog(Path(tempfile.mkdtemp()) / "evaluations.jsonl")
    >>> log.write(600, seed=1_000_000, records=[{"episode": 0, "length": 5, "return_mean": 0.5}])
    >>> log.path.read_text()
    '{"frames": 600, "seed": 1000000, "episode": 0, "length": 5, "return_mean": 0.5}\\n'
    """

    def __init__(self, path: Path):
        self.path = path
        self._frames = -1

    def write(self, frames: int, *, seed: int, records: Iterable[dict[str, float]]) -> None:
        """Append the episodes of one evaluation; earlier ones at as many frames, or at more, are dropped."""
        if frames <= self._frames:
            self.drop_from(frames)
        with open(self.path, "a") as file:
            file.writelines(json.dumps({"frames": frames, "seed": seed, **record}) + "\n" for record in records)
        self._frames = frames

    def drop_from(self, frames: int) -> None:
        """Drop the evaluations at ``frames`` and later: a resumed run evaluates again.

        A last line that a stopped program left unfinished is dropped, too.

        Raises:
            UserError: for lines that are not records.
        """
        if not self.path.is_file():
            return
        kept = [record for record in read_evaluations(self.path) if record["frames"] < frames]
        with replacing(self.path) as file:
            file.writelines((json.dumps(record) + "\n").encode() for record in kept)
        self._frames = kept[-1]["frames"] if kept else -1


def read_evaluations(path: Path) -> Iterator[JsonObject]:
    """The lines of an ``evaluations.jsonl``, without a last one that is unfinished.

    Raises:
        UserError: for lines that are not records.

    >>> from pathlib import Path
    >>> import tempfile
    >>> from ctde_kit.training import EvaluationLog, read_evaluations
    >>> log = EvaluationLog(Path(tempfile.mkdtemp()) / "evaluations.jsonl")
    >>> log.write(600, seed=1_000_000, records=[{"episode": 0, "return_mean": 0.5}])
    >>> list(read_evaluations(log.path))
    [{'frames': 600, 'seed': 1000000, 'episode': 0, 'return_mean': 0.5}]
    """
    with open(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith("\n"):
                return
            try:
                record: object = json.loads(line)
            except ValueError:
                record = None
            if not isinstance(record, dict) or not isinstance(record.get("frames"), int):
                raise UserError(f"{path}, line {number}: expected an episode's record; move the file away")
            yield record
