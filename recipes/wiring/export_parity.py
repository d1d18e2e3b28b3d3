"""Whether exported actors act as the run's own policy: recorded episodes, played again by the files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.envs.utils import set_exploration_type

from ctde_kit.errors import UserError
from ctde_kit.keys import IS_INIT
from ctde_kit.modules.export.greedy_step import GreedyStep
from ctde_kit.recipes.wiring.saved_policies import Stage

TOLERANCE = 1e-5
OBSERVATIONS = 1_000


@dataclass(frozen=True)
class Parity:
    """How one agent's file compares with the run's own policy over recorded observations.

    Args:
        observations: how many.
        difference: the largest of continuous actions, else the share of choices that differ.
        excused: choices that differ where the best two are within ``TOLERANCE``, which rounding decides.
    """

    observations: int
    difference: float
    excused: int = 0

    def check(self, name: str) -> None:
        """Raise ``UserError`` where it is not the same policy."""
        if self.difference > TOLERANCE:
            raise UserError(
                f"export: {name} differs from the run's policy by {self.difference:.2g} in {self.observations} "
                "observations; please report it, with the run's config.yaml"
            )


@torch.no_grad()
def record(stage: Stage) -> list[TensorDictBase]:
    """What the policy read and wrote, greedily, step by step, until each group has ``OBSERVATIONS`` per agent."""
    steps: list[TensorDictBase] = []
    with torch.random.fork_rng(), set_exploration_type(stage.exploration):
        torch.manual_seed(stage.seed)
        stage.env.set_seed(stage.seed)
        root = stage.env.reset()
        while len(steps) * stage.env.batch_size[0] < OBSERVATIONS:
            step, root = stage.env.step_and_maybe_reset(stage.policy(root))
            steps.append(step.cpu())
    return steps


@torch.no_grad()
def compare(
    steps: list[TensorDictBase], step: GreedyStep, call: Callable[..., tuple[Tensor, ...]], agent: int
) -> Parity:
    """Play the recorded observations of one agent again, with the hidden state that the file itself gives.

    Args:
        steps: as ``record`` gave them.
        step: the agent's policy before it was written, which says how close choices are.
        call: the file.
        agent: its index in the group.
    """
    keys = step.group.keys
    entries: Mapping[str, tuple[str, str]] = {
        "observation": keys.observation,
        "action_mask": keys.action_mask,
        "last_action": keys.last_action,
        "sub_policy": keys.sub_policy,
    }
    largest, differing, excused, count = 0.0, 0, 0, 0
    hidden = None
    for recorded in steps:
        alive = recorded.get(keys.mask)[:, agent] if step.group.mask else None
        given = [recorded.get(entries[port.name])[:, agent] for port in step.inputs if port.name in entries]
        given = [value.float() if value.dtype == torch.float64 else value for value in given]
        if step.network.hidden_key is not None:
            hidden = step.inputs[-1].zeros(len(given[0])) if hidden is None else hidden
            hidden = hidden.masked_fill(recorded.get(IS_INIT), 0.0)
            given.append(hidden)
        action, *carried = call(*given)
        hidden = carried[0] if carried else None
        expected = recorded.get(keys.action)[:, agent]
        counts = torch.ones(len(expected), dtype=torch.bool) if alive is None else alive
        count += int(counts.sum())
        if not step.group.action.discrete:
            largest = max(largest, float((action - expected).abs()[counts].max()) if counts.any() else 0.0)
            continue
        wrong = (action != expected).reshape(len(expected), -1).any(-1) & counts
        close = _margin(step, step.scores(*given)[0]) <= TOLERANCE
        differing, excused = differing + int((wrong & ~close).sum()), excused + int((wrong & close).sum())
    return Parity(count, max(largest, differing / max(count, 1)), excused)


def _margin(step: GreedyStep, scores: Tensor) -> Tensor:
    """By how much the best choice is better than the next one; for several choices, the smallest of these margins."""
    parts = [part for part in scores.split(list(step.group.action.sizes), -1) if part.shape[-1] > 1]
    margins = [(best[..., 0] - best[..., 1]).abs() for best in (part.topk(2).values for part in parts)]
    return torch.stack(margins).amin(0)
