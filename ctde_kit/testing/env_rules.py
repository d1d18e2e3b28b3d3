"""What an env's episodes must be: specs, time limits, last observations, masks, agents' own ends."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from torch import Tensor

from ctde_kit.errors import one_line
from ctde_kit.keys import DONE, NEXT, TERMINATED, TRUNCATED
from ctde_kit.testing.comparing import number
from ctde_kit.testing.entry_names import leaves
from ctde_kit.testing.env_case import LONGEST, EnvCase, Step, observed
from ctde_kit.testing.findings import NotApplicable, Violation, rule

# Steps whose every entry is checked against the specs.
SEVERAL = 20


@rule("Buffers, collectors and networks are built from specs; data of another shape or dtype is found far from here.")
def specs(case: EnvCase) -> str:
    """Data have the keys, shapes, dtypes and bounds of the specs."""
    env, count = case.env, 0
    fake = {key for key in leaves(env.fake_tensordict()) if key[-1] != "_reset"}
    real = set(leaves(case.rolled[0].data))
    for missing, place in (
        (fake - real, "the specs and not in the data"),
        (real - fake, "the data and not in the specs"),
    ):
        if missing:
            raise Violation(f"key {min(missing)} is in {place}")
    composites = {
        (): [env.full_observation_spec, env.full_done_spec],
        (NEXT,): [env.full_observation_spec, env.full_done_spec, env.full_reward_spec],
    }
    for step in case.rolled[:SEVERAL]:
        values = leaves(step.data)
        for prefix, specs_there in composites.items():
            for composite in specs_there:
                for key, spec in composite.items(True, True):
                    key = (*prefix, *((key,) if isinstance(key, str) else key))
                    count += 1
                    _check_leaf(key, spec, values[key])
    return f"{count} entries as the specs say"


def _check_leaf(key: tuple[str, ...], spec: object, value: Tensor) -> None:
    for name in ("shape", "dtype"):
        expected = getattr(spec, name)
        if getattr(value, name) != expected:
            raise Violation(f"key {key}: {name} {_plain(getattr(value, name))}, the spec says {_plain(expected)}")
    if not spec.is_in(value):  # pyright: ignore[reportAttributeAccessIssue]  # a TensorSpec
        low, high = value.min().item(), value.max().item()
        raise Violation(f"key {key}: values from {low} to {high} are outside {one_line(spec, 200)}")


def _plain(value: object) -> object:
    return list(value) if isinstance(value, torch.Size) else value


@rule(
    "Collectors allocate from the specs; where a group's batch size is another one there, they fail or misalign agents."
)
def batch_sizes(case: EnvCase) -> str:
    """A group has the batch size in data that it has in the specs."""
    fake, data = case.env.fake_tensordict(), case.rolled[0].data
    for prefix in ((), (NEXT,)):
        for group in case.groups:
            expected, found = _batch_size(fake, (*prefix, group)), _batch_size(data, (*prefix, group))
            if expected != found:
                raise Violation(f"key {(*prefix, group)}: batch size {found} in the data, {expected} by the specs")
    return f"batch size {list(case.env.batch_size)}, groups {case.groups}"


def _batch_size(tensordict: TensorDictBase, key: tuple[str, ...]) -> list[int] | None:
    entry = tensordict.get(key, None)
    return list(entry.batch_size) if isinstance(entry, TensorDictBase) else None


@rule("One NaN in an observation or reward turns every weight into NaN at the next update.")
def finite(case: EnvCase) -> str:
    """Observations and rewards are numbers."""
    for index, step in enumerate(case.rolled):
        for key, value in leaves(step.data).items():
            if value.is_floating_point() and not value.isfinite().all() and key[-1] != "action":
                raise Violation(f"key {key} is not finite in step {index + 1}")
    return f"{len(case.rolled)} steps"


@rule("A time limit is not an end: reported as terminated, it is not bootstrapped, and values near it are too small.")
def time_limit_is_truncation(case: EnvCase) -> str:
    """At the time limit an env is truncated, and not terminated."""
    limit = case.limit
    if limit is None:
        raise NotApplicable("no time limit is known; give max_steps")
    if limit > LONGEST:
        raise NotApplicable(f"max_steps={limit} is more than {LONGEST} steps")
    reached = truncated = terminated = 0
    for step in case.rolled:
        at_limit = (step.elapsed == limit).to(step.flag(DONE).device)
        reached += int(at_limit.sum())
        terminated += int((step.flag(TERMINATED) & at_limit).sum())
        truncated += int((step.flag(TRUNCATED) & at_limit).sum()) if (NEXT, TRUNCATED) in leaves(step.data) else 0
        if (step.elapsed > limit).any():
            raise Violation(f"an episode goes on after {limit} steps, its time limit")
    if not reached:
        raise NotApplicable(f"every episode ended before {limit} steps, the time limit")
    figure = (
        f"after {limit} steps, the time limit, {truncated} of {reached} envs are truncated, {terminated} terminated"
    )
    if terminated == reached or truncated + terminated < reached:
        raise Violation(f"{figure}; expected truncated and not terminated")
    return figure


@rule("Targets bootstrap from the observation that an episode ended in; the next episode's first one is another state.")
def last_observation_is_before_the_reset(case: EnvCase) -> str:
    """``next`` holds what the agents saw at the end of an episode, not what they see after the reset."""
    ordinary, last, jumps, same, starts = _moves(case)
    if last.numel() == 0:
        case.endings()
    random = case.random_resets
    if bool(same.all()) and (random or (len(ordinary) and not starts.any())):
        raise Violation(
            f"in {int(same.sum())} of {len(same)} endings the observation under 'next' is the first one of the next "
            "episode, expected the one before the reset"
        )
    if not random:
        return "no reset is random; the last observations are not first ones"
    if not len(ordinary):
        raise NotApplicable("episodes of one step: nothing tells a last observation from a first one")
    usual, end, jump = float(ordinary.max()), float(last.median()), float(jumps.median())
    steps = f"{number(usual)} in a step, {number(end)} in the last one, {number(jump)} in a reset"
    figure = f"observations move by up to {steps}"
    if end > 3 * usual and end > 0.5 * jump:
        raise Violation(f"{figure}: 'next' holds an observation after the reset, expected the one before")
    return figure


def _moves(case: EnvCase) -> tuple[Tensor, ...]:
    """Distances of ordinary steps, of last steps and of resets; which endings equal the start, and which steps do."""
    ordinary, last, jumps, same, starts = [], [], [], [], []
    start = observed(case.rolled[0].data)
    for step in case.rolled:
        before, after, following = observed(step.data), observed(step.data.get(NEXT)), observed(step.following)
        if after.shape != before.shape:
            raise NotApplicable("root and next hold other entries")
        done = step.flag(DONE).cpu()
        distance = (after - before).norm(dim=-1)
        ordinary.append(distance[~done])
        starts.append((after == start).all(-1)[~done])
        last.append(distance[done])
        jumps.append((following - before).norm(dim=-1)[done])
        same.append((after == following).all(-1)[done])
    return tuple(torch.cat(parts) for parts in (ordinary, last, jumps, same, starts))


@rule("An agent that may do nothing samples NaN, and a mask that comes late is not in what networks are built from.")
def masks(case: EnvCase) -> str:
    """Masks are bool and there from the reset on, and every living agent may do something."""
    first, later = leaves(case.env.reset()), leaves(case.rolled[0].data)
    names = (case.action_mask, case.mask)
    shown = sorted({key[1:] if key[0] == NEXT else key for key in [*first, *later] if key[-1] in names})
    if not shown:
        raise NotApplicable("the env writes no masks")
    for key in shown:
        if key not in first:
            raise Violation(f"key {key} is in a step and not in the reset: what acts first cannot obey it")
        if first[key].dtype != torch.bool:
            raise Violation(f"key {key}: dtype {first[key].dtype}, expected torch.bool")
    states = [root for step in case.rolled for root in (step.data, step.following)]
    for root in states:
        for key in shown:
            if key[-1] == case.action_mask:
                _check_choices(root, key, case.mask)
    return f"{', '.join(map(str, shown))} in {len(states)} states"


def _check_choices(root: TensorDictBase, key: tuple[str, ...], alive_name: str) -> None:
    mask = root.get(key)
    stuck = ~mask.any(-1)
    alive = root.get((*key[:-1], alive_name), None)
    if alive is not None:
        stuck = stuck & alive
    done = root.get(DONE, None)
    if done is not None:
        stuck = stuck & ~done.reshape(*done.shape, *[1] * (stuck.ndim - done.ndim)).expand_as(stuck)
    if stuck.any():
        raise Violation(
            f"key {key}: {int(stuck.sum())} living agents may do nothing, expected at least one action each"
        )


@rule(
    "An agent's trace ends with its own end or the team's; flags that contradict each other cut it in the wrong place."
)
def agents_own_ends(case: EnvCase) -> str:
    """Done is terminated or truncated, for team and agents; who ended stays ended; when all have, the team is done."""
    groups = [group for group in case.groups if (NEXT, group, DONE) in leaves(case.rolled[0].data)]
    counts = dict.fromkeys(("team", *groups), 0)
    for step in case.rolled:
        values = leaves(step.data)
        for place in ((), *((group,) for group in groups)):
            done, terminated, truncated = (values.get((NEXT, *place, name)) for name in (DONE, TERMINATED, TRUNCATED))
            if done is None or terminated is None:
                raise Violation(
                    f"key {(NEXT, *place, TERMINATED)} is missing: done alone does not say whether to bootstrap"
                )
            either = terminated if truncated is None else terminated | truncated
            if not torch.equal(done, either):
                raise Violation(
                    f"key {(NEXT, *place, DONE)} is not terminated or truncated in {int((done ^ either).sum())} places"
                )
            counts[place[0] if place else "team"] += int(done.sum())
        if groups:
            _check_team_ends(step, values, case.groups, groups)
    _check_ends_last(case, groups)
    return ", ".join(f"{name} {count} ends" for name, count in counts.items())


def _check_ends_last(case: EnvCase, groups: list[str]) -> None:
    """Whoever has ended does not go on before the reset, unless its mask says that it is dead."""
    ended: dict[str, Tensor] = {}
    for index, step in enumerate(case.rolled):
        values, rows = leaves(step.data), step.flag(DONE).numel()
        for group in groups:
            done = values[NEXT, group, DONE].reshape(rows, -1)
            mask = values.get((NEXT, group, case.mask))
            goes_on = ended.get(group, torch.zeros_like(done)) & ~done
            goes_on = goes_on if mask is None else goes_on & mask.reshape(rows, -1)
            if goes_on.any():
                agent = int(goes_on.any(0).nonzero()[0])
                raise Violation(
                    f"agent {agent} of {group!r} goes on in step {index + 1}, without a reset since it was done: flag "
                    "it in each step from its end to the reset, or not at all"
                )
            ended[group] = (ended.get(group, done) | done) & ~step.flag(DONE).unsqueeze(-1)
    if case.masked_after_their_end:
        raise Violation(
            f"{' and '.join(case.masked_after_their_end)}: the environment flags the end and then goes on without the "
            "flag; all that follows is masked until the reset"
        )


def _check_team_ends(
    step: Step, values: dict[tuple[str, ...], Tensor], all_groups: list[str], groups: list[str]
) -> None:
    if set(groups) != set(all_groups):
        return
    ended = torch.stack([values[NEXT, group, DONE].flatten(step.data.ndim).all(-1) for group in groups]).all(0)
    going = ended & ~values[NEXT, DONE].flatten(step.data.ndim).any(-1)
    if going.any():
        raise Violation(f"{int(going.sum())} envs go on where every agent is done")
