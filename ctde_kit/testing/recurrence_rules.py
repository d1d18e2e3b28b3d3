"""What a recurrent policy must do: steps equal sequences, states survive collection, flat minibatches are refused."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase, stack

from ctde_kit.errors import one_line
from ctde_kit.keys import IS_INIT
from ctde_kit.testing.comparing import difference, number
from ctde_kit.testing.entry_names import leaves, under_next
from ctde_kit.testing.findings import NotApplicable, Violation, rule
from ctde_kit.testing.policy_case import PolicyCase

CLOSE = 1e-5


@rule("The policy acts step by step and learns along sequences: where the two differ, it learns from another policy.")
def steps_equal_sequence(case: PolicyCase) -> str:
    """A sequence with resets inside gives what its steps give one by one."""
    case.need_recurrent()
    sequence = case.sequence()
    steps = case.step_by_step(sequence)
    gap, key, step = _gap(case, steps, case.act(sequence, sequence=True))
    if gap > CLOSE:
        raise Violation(f"in step {step + 1} of a sequence {key} is {number(gap)} off what steps give, expected 0")
    return f"{len(steps)} steps with resets inside, differ by {number(gap)}"


@rule("Minibatches start in the middle of episodes, where the network must go on from the hidden state it had.")
def starts_from_stored_hidden(case: PolicyCase) -> str:
    """A slice from the middle of an episode, with the stored hidden state, gives what the whole gave there."""
    case.need_recurrent()
    sequence = case.sequence()
    steps = case.step_by_step(sequence)
    stored = stack([step.select(*case.hidden_keys) for step in steps], 1)
    for key in case.hidden_keys:
        # As an env's primer has it: zero where an episode begins.
        hidden = stored.get(key)
        begins = sequence.get(IS_INIT).reshape(*sequence.shape, *[1] * (hidden.ndim - sequence.ndim))
        sequence.set(key, hidden.masked_fill(begins, 0))
    begin = 2
    found = case.act(sequence[:, begin:], sequence=True)
    gap, key, step = _gap(case, steps[begin:], found)
    if gap > CLOSE:
        raise Violation(
            f"a slice from step {begin + 1} on gives a {key} {number(gap)} off in its step {step + 1}: the stored "
            "hidden state is not what it starts from"
        )
    return f"a slice from step {begin + 1} on differs by {number(gap)}"


def _gap(case: PolicyCase, steps: list[TensorDictBase], sequence: TensorDictBase) -> tuple[float, object, int]:
    """The largest difference, with its key and step."""
    found = case.outputs(sequence)
    gaps = [
        (difference(value, found[key][:, index]), key, index)
        for index, step in enumerate(steps)
        for key, value in case.outputs(step).items()
        if value.is_floating_point()
    ]
    return max(gaps, key=lambda gap: gap[0])


@rule("A hidden state that is dropped between two steps makes a recurrent policy a forgetful one that nobody notices.")
def hidden_state_survives(case: PolicyCase) -> str:
    """In collected data each step starts from the hidden state that the step before wrote."""
    case.need_recurrent()
    values, is_init = leaves(case.data), case.data.get(IS_INIT, None)
    for key in case.hidden_keys:
        if any(part.startswith("_") for part in key):
            raise Violation(f"key {key} starts with an underscore: collectors drop such entries")
        if key not in values:
            raise Violation(f"key {key} is not in the collected data: append a TensorDictPrimer to the env")
        if under_next(key) not in values:
            continue
        before, after = values[under_next(key)][:, :-1], values[key][:, 1:]
        lost = (before != after).flatten(2).any(-1)
        if is_init is not None:
            lost &= ~is_init[:, 1:].flatten(2).any(-1)
        if lost.any():
            raise Violation(
                f"key {key}: {int(lost.sum())} of {lost.numel()} steps do not start from what the step before wrote"
            )
    return f"{', '.join(map(str, case.hidden_keys))} is carried along {case.data.shape[-1]} steps"


@rule("Shuffled single steps are not a sequence: unrolled as one, each starts from another step's hidden state.")
def flat_minibatch_is_refused(case: PolicyCase) -> str:
    """In recurrent mode single steps ``[B]`` are an error, or are taken as single steps."""
    case.need_recurrent()
    flat = case.inputs(12)
    for key in case.hidden_keys:
        flat.set(key, 0.5 * torch.randn_like(flat.get(key)))
    expected = case.outputs(case.act(flat))
    try:
        written = case.act(flat, sequence=True)
    except Exception as error:  # however it refuses
        return f"refused: {one_line(error, 80)}"
    found = case.outputs(written)
    gaps = {key: difference(value, found[key]) for key, value in expected.items() if value.is_floating_point()}
    key = max(gaps, key=lambda name: gaps[name], default=None)
    if key is None:
        raise NotApplicable("no output is a float")
    if gaps[key] > CLOSE:
        raise Violation(
            f"{key} is {number(gaps[key])} off what single steps give: the minibatch [12] was unrolled as one sequence"
        )
    return "taken as single steps"
