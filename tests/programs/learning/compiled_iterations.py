"""How far a compiled iteration ends from the same iteration run eagerly, at each iteration of a run.

Run ``python -m tests.programs.learning.compiled_iterations``.

MAPPO on VMAS navigation learns eagerly. Each of its iterations is done again with compiled gradient steps, from the
same state of all parts and random generators, so the batch and the minibatches are the same. Writes
docs/results/compiled_iterations.json: the distance of the parameters, relative to how far the iteration moved them, and
the number of its updates in which one side clipped more samples than the other.
"""

from __future__ import annotations

import copy
import datetime
import json
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ctde_kit.training import (
    GradientStep,
    HoldsGradientSteps,
    Iteration,
    Parts,
    iterate,
    random_state,
    restore_random_state,
    stateful_parts,
    unchanged_random_state,
)
from tests.programs.learning.measure import ROOT, machine
from tests.recipes.command_line import composed

RESULTS = ROOT / "docs" / "results" / "compiled_iterations.json"
OPTIONS = ["task=vmas/navigation", "total_frames=102000", "device=cpu", "threads=1", "seed=1"]


class Learner:
    """A learner with eager rollouts, whose updates are watched.

    Args:
        compile: whether its gradient steps are compiled.
    """

    def __init__(self, compile: bool) -> None:
        self.parts: Parts = composed("mappo", *OPTIONS, "compile=on").build()
        self.parts.collector.compile = False
        assert isinstance(self.parts.update, HoldsGradientSteps)
        (self.step,) = self.parts.update.gradient_steps
        self.step.compile = compile
        self.clipped: list[float] = []
        self._watch(self.step)
        self._iterations: Iterator[Iteration] = iter(iterate(self.parts))

    def _watch(self, step: GradientStep) -> None:
        update = step._step

        def watched(minibatch: Any) -> dict[str, Tensor]:
            metrics = update(minibatch)
            self.clipped.append(float(metrics["clip_fraction"]))
            return metrics

        step._step = watched

    @property
    def parameters(self) -> Tensor:
        """All of them, in one vector."""
        return torch.cat([one.detach().reshape(-1) for one in self.step.losses.parameters()])

    def state(self) -> dict[str, Any]:
        """Of all parts and random generators."""
        parts = {name: copy.deepcopy(part.state_dict()) for name, part in stateful_parts(self.parts).items()}
        return {"parts": parts, "random": random_state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from ``state``, which stays as it is."""
        for name, part in stateful_parts(self.parts).items():
            part.load_state_dict(copy.deepcopy(state["parts"][name]))
        restore_random_state(state["random"])

    def learn(self) -> Tensor:
        """One iteration; the parameters after it."""
        self.clipped.clear()
        next(self._iterations)
        return self.parameters


def main() -> None:
    """All iterations of a run."""
    torch.set_num_threads(1)
    eager, compiled = Learner(compile=False), Learner(compile=True)
    rows: list[dict[str, float]] = []
    total = eager.parts.collector.total_frames
    while eager.parts.collector.frames < total:
        before, state = eager.parameters, eager.state()
        plain = eager.learn()
        with unchanged_random_state():
            compiled.restore(state)
            apart = (compiled.learn() - plain).norm() / (plain - before).norm()
        sides = sum(one != other for one, other in zip(eager.clipped, compiled.clipped, strict=True))
        rows.append({"apart": float(apart), "other_clips": sides, "updates": len(eager.clipped)})
        print(rows[-1], flush=True)
    result = {
        "command": " ".join(["ctde-mappo", *OPTIONS]),
        "iterations": rows,
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
