"""What an env must keep apart: data it has given from its own buffers, one episode from the one before."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from torch import Tensor

from ctde_kit.keys import DONE, NEXT, TERMINATED, TRUNCATED
from ctde_kit.testing.comparing import difference, number
from ctde_kit.testing.entry_names import leaves
from ctde_kit.testing.env_case import EnvCase, fingerprint
from ctde_kit.testing.findings import NotApplicable, Violation, rule

STEPS, AGAIN = 5, 10


@rule("A buffer or a target that keeps an observation must find in it what was seen, not what came later.")
def data_are_not_overwritten(case: EnvCase) -> str:
    """What a reset or a step gave is the same after more steps and another reset."""
    given: list[tuple[str, TensorDictBase, TensorDictBase]] = []

    def keep(what: str, data: TensorDictBase) -> None:
        given.append((what, data, data.clone()))

    case.env.set_seed(0)
    root = case.env.reset()
    keep("the reset", root)
    for index in range(STEPS):
        data, root = case.env.step_and_maybe_reset(case.act(root.clone(), index))
        keep(f"step {index + 1}", data.get(NEXT))
        keep(f"step {index + 1}", root)
    case.env.reset()
    for what, data, copy in given:
        values = leaves(data)
        for key, before in leaves(copy).items():
            gap = difference(before, values[key])
            if gap:
                raise Violation(
                    f"key {key}, which {what} gave, was {number(gap)} off after later steps, expected the same: the "
                    "env writes into it; clone what is given"
                )
    return f"{STEPS} steps and 2 resets, nothing that was given changed later"


@rule(
    "An episode that depends on the one before it is another task than the first; a forgotten counter ends it at once."
)
def resets_forget_the_past(case: EnvCase) -> str:
    """Later episodes have the first ones' time limit, and one seed the same episode at any time."""
    first, later = _truncated_after(case)
    if first and later and len(set(first)) == 1 and max(later) < first[0]:
        raise Violation(
            f"episodes that begin with a reset on the way are truncated in step {max(later)} at the latest, the first "
            f"ones in step {first[0]}: the reset leaves the count of steps as it was"
        )
    if not case.repeatable:
        raise NotApplicable("the same seed does not give the same data twice")
    again = case.roll(min(AGAIN, len(case.rolled)), seed=0)
    for index, (before, after) in enumerate(zip(case.rolled, again, strict=False)):
        ours, theirs = fingerprint([before]), fingerprint([after])
        if not torch.equal(ours, theirs):
            raise Violation(
                f"seeded and reset after other episodes, the env differs by {number(difference(ours, theirs))} in step "
                f"{index + 1} from what it did at first: the reset leaves something as it was"
            )
    return f"{len(again)} steps again, the same after other episodes"


def _truncated_after(case: EnvCase) -> tuple[list[int], list[int]]:
    """After how many steps envs were truncated and not terminated, in their first episodes and in later ones."""
    first: list[int] = []
    later: list[int] = []
    ended: Tensor | None = None
    for step in case.rolled:
        done = step.flag(DONE).cpu()
        ended = torch.zeros_like(done) if ended is None else ended
        if (NEXT, TRUNCATED) in leaves(step.data):
            truncated = (step.flag(TRUNCATED) & ~step.flag(TERMINATED)).cpu()
            first += step.elapsed[truncated & ~ended].tolist()
            later += step.elapsed[truncated & ended].tolist()
        ended = ended | done
    return first, later
