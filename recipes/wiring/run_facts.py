"""``facts.json`` of a run: what it was done with, each time it was started or resumed."""

from __future__ import annotations

import datetime
import json
import time

from ctde_kit.collectors import RolloutCollector
from ctde_kit.distributed import Learners, RemoteRollouts
from ctde_kit.files import JsonObject, replacing
from ctde_kit.recipes.configs.data import to_data
from ctde_kit.recipes.configs.recipe import RecipeConfig
from ctde_kit.recipes.wiring.devices import resolve_device
from ctde_kit.training import HoldsGradientSteps, Parts, RunDirectory
from ctde_kit.training.facts import software_and_machine


class Session:
    """One start of a run, or one resumption, in the list of them in ``facts.json``; written at once, and at its end.

    Args:
        config: of the run.
        parts: of the run, its state loaded.
        directory: of the run.
    """

    def __init__(self, config: RecipeConfig, parts: Parts, directory: RunDirectory):
        self._config, self._parts, self._path = config, parts, directory.facts
        self._earlier = _earlier_sessions(directory)
        self._started = time.perf_counter()
        self._facts: JsonObject = {
            "began": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "from_frames": parts.collector.frames,
            "device": resolve_device(config.device),
            **software_and_machine(),
        }
        self._write()

    def end(self) -> None:
        """Write how long the session took, and what was compiled."""
        self._facts |= {"to_frames": self._parts.collector.frames, "seconds": time.perf_counter() - self._started}
        self._write()

    def _write(self) -> None:
        self._facts["compile"] = {"asked": self._config.compile, **_compiled(self._parts)}
        facts = {
            "algorithm": self._config.algorithm,
            "task": to_data(self._config.task),
            "seed": self._config.seed,
            "sessions": [*self._earlier, self._facts],
        }
        with replacing(self._path) as file:
            file.write((json.dumps(facts, indent=2) + "\n").encode())


def _earlier_sessions(directory: RunDirectory) -> list[JsonObject]:
    try:
        sessions = json.loads(directory.facts.read_text())["sessions"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return sessions if isinstance(sessions, list) else []


def _compiled(parts: Parts) -> dict[str, bool]:
    """Whether rollouts and updates run as compiled graphs; what failed to compile has set its ``compile`` to False."""
    update = parts.update
    return {
        "rollouts": isinstance(parts.collector, (RolloutCollector, RemoteRollouts, Learners))
        and parts.collector.compile,
        "updates": isinstance(update, HoldsGradientSteps) and all(step.compile for step in update.gradient_steps),
    }
