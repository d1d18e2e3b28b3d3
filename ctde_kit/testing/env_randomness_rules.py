"""What an env's random streams and resets must be: seeds, copies, partial resets."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from torch import Tensor

from ctde_kit.keys import DONE, NEXT
from ctde_kit.testing.comparing import difference, number
from ctde_kit.testing.entry_names import leaves
from ctde_kit.testing.env_case import EnvCase, fingerprint, observed
from ctde_kit.testing.findings import NotApplicable, Violation, drawing_from, rule

STEPS_BEFORE, STEPS_AFTER = 2, 5
# The longest part of an episode before a reset is tried.
LATEST = 100
SEEDS = (1, 2, 3, 4, 5)


@rule("A run that cannot be repeated cannot be debugged, and seeds that all draw alike are one run and not several.")
def seeds(case: EnvCase) -> str:
    """One seed gives the same data twice, other seeds other data, and the envs of a batch differ."""
    with drawing_from(1):
        first = fingerprint(case.roll(5, seed=0))
    with drawing_from(2):
        again = fingerprint(case.roll(5, seed=0))
    if not torch.equal(first, again):
        raise Violation(f"set_seed(0) twice: data differ by {number(difference(first, again))}, expected the same")
    if not case.random_resets:
        return "the same data twice; no reset is random"
    # A game with few beginnings may draw the same one twice.
    if all(torch.equal(first, fingerprint(case.roll(5, seed=seed))) for seed in SEEDS):
        raise Violation(
            f"set_seed gives the same data for the seeds 0, {', '.join(map(str, SEEDS))}; resets are random"
        )
    rows = torch.cat([_first_observations(case, seed) for seed in SEEDS], -1)
    if len(rows) > 1 and (rows == rows[0]).all():
        raise Violation(f"all {len(rows)} envs of the batch begin alike: each must draw by itself")
    return "the same data twice, other data for another seed"


def _first_observations(case: EnvCase, seed: int) -> Tensor:
    case.env.set_seed(seed)
    return observed(case.env.reset())


@rule("Workers are copies of one program: where unseeded envs draw alike, many workers collect the data of one.")
def unseeded_copies(case: EnvCase) -> str:
    """Two envs without a seed, made from the same state of the program's generators, begin differently."""
    if case.make is None:
        raise NotApplicable("give a function of a seed, which may be None, such as lambda seed: MyEnv(seed)")
    if not case.random_resets:
        raise NotApplicable("no reset is random")
    begins = []
    for _ in range(2):
        with drawing_from(5):
            env = case.make(None)
            begins.append(observed(env.reset()))
            env.close()
    if torch.equal(*begins):
        raise Violation(
            "two envs with seed=None, made from one state of the program's generators, saw the same first observations"
        )
    return f"first observations differ by {number(difference(*begins))}"


@rule("A reset that touches the other envs makes them jump in the middle of an episode, which no target expects.")
def partial_reset(case: EnvCase) -> str:
    """A reset of some envs of the batch leaves the others bit for bit as they were."""
    rows = case.env.batch_size.numel()
    if len(case.env.batch_size) != 1 or rows < 2:
        raise NotApplicable(f"batch size {list(case.env.batch_size)}: there are no others")
    if not case.repeatable:
        raise NotApplicable("the same seed does not give the same data twice")
    random_steps = False
    # What a reset touches may show only once something has happened in the episode.
    for moment in sorted({STEPS_BEFORE, min(len(case.rolled) // 2, LATEST)}):
        random_steps |= _others_stay(case, moment)
    if random_steps:
        return f"the other {rows - 1} see the same; steps are random, so what they do next was not compared"
    return f"the other {rows - 1} envs are bit for bit the same"


def _others_stay(case: EnvCase, moment: int) -> bool:
    """Compare the others with and without a reset of env 0 after ``moment`` steps; returns whether steps are random."""
    others = case.env.batch_size.numel() - 1
    before, _, kept = _go_on(case, moment, None)
    _, root, following = _go_on(case, moment, 0)
    if not torch.equal(root[1:], before[1:]):
        gap = difference(root[1:], before[1:])
        raise Violation(f"a reset of env 0 moved what the other {others} see by {number(gap)}, expected 0")
    _, _, reseeded = _go_on(case, moment, None, reseed=True)
    if not all(torch.equal(one[1:], other[1:]) for one, other in zip(reseeded, kept, strict=False)):
        return True
    for after, (reset, alone) in enumerate(zip(following, kept, strict=False)):
        if not torch.equal(reset[1:], alone[1:]):
            when = "the next step" if after == 0 else f"step {after + 1} after it"
            gap = number(difference(reset[1:], alone[1:]))
            raise Violation(
                f"a reset of env 0 after {moment} steps moved {when} of the other {others} by {gap}, expected 0"
            )
    return False


def _go_on(
    case: EnvCase, moment: int, reset_row: int | None, reseed: bool = False
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """What envs see after ``moment`` steps, after a reset of one row, and in the steps after that.

    These end where an env other than the first does, whose own reset may draw other numbers then.
    """
    root = case.roll(moment, seed=3)[-1].following
    before = observed(root)
    if reseed:
        case.env.set_seed(4)
        torch.manual_seed(4)
    if reset_row is not None:
        root = case.env.reset(_with_reset(case, root.clone(), reset_row))
    begin, following = observed(root), []
    for index in range(STEPS_AFTER):
        data, root = case.env.step_and_maybe_reset(case.act(root.clone(), 99 + index))
        following.append(torch.cat([observed(data.get(NEXT)), _rewards(data)], -1))
        if data.get((NEXT, DONE)).reshape(len(before), -1)[1:].any():
            break
    return before, begin, following


def _with_reset(case: EnvCase, root: TensorDictBase, row: int) -> TensorDictBase:
    for reset_key, done_keys in zip(case.env.reset_keys, case.env.done_keys_groups, strict=True):
        chosen = torch.zeros_like(root.get(done_keys[0]), dtype=torch.bool)
        chosen[row] = True
        root.set(reset_key, chosen)
    return root


def _rewards(data: TensorDictBase) -> Tensor:
    rows = data.numel()
    return torch.cat([v.reshape(rows, -1).double() for k, v in leaves(data).items() if k[-1] == "reward"], -1)
