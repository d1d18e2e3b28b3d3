"""``check_state``: the doctor for what a checkpoint saves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from ctde_kit.errors import one_line
from ctde_kit.protocols import StateDict, Stateful
from ctde_kit.testing.comparing import difference, largest_difference, number
from ctde_kit.testing.findings import NotApplicable, Report, Violation, drawing_from, examine, rule

Path = tuple[object, ...]
Leaf = Tensor | bool | int | float


@dataclass
class StateCase:
    """What the rules of state check: a part, and how it is used and made.

    Args:
        part: has ``state_dict`` and ``load_state_dict``.
        use: does with the part what training does, and returns what depends on it.
        make: makes a fresh part; ``None``: it is copied.
        times: how often it is used before it is saved.
    """

    part: Stateful
    use: Callable[..., object]
    make: Callable[[], Stateful] | None
    times: int

    def fresh(self) -> Stateful:
        """A part that was not used yet."""
        return deepcopy(self._unused) if self.make is None else self.make()

    @cached_property
    def _unused(self) -> Stateful:
        return deepcopy(self.part)

    @cached_property
    def used(self) -> Stateful:
        """A part that was used several times."""
        part = self.fresh()
        for index in range(self.times):
            self.output(part, index)
        return part

    @cached_property
    def saved(self) -> StateDict:
        """The state of the used part."""
        return deepcopy(self.used.state_dict())

    def output(self, part: Stateful, seed: int = 99) -> object:
        """What a part's use returns, always with the same random numbers."""
        with drawing_from(seed):
            return deepcopy_detached(self.use(part))

    def expected(self) -> object:
        """What the used part's next use returns; the part stays as it is."""
        return self.output(deepcopy(self.used))


def deepcopy_detached(output: object) -> object:
    """The tensors of an output without their graph."""
    if isinstance(output, (Tensor, TensorDictBase)):
        return output.detach().clone()
    if isinstance(output, Mapping):
        return {key: deepcopy_detached(value) for key, value in output.items()}
    if isinstance(output, (tuple, list)):
        return [deepcopy_detached(value) for value in output]
    return output


def entries(state: object, path: Path = ()) -> Iterator[tuple[Path, Leaf]]:
    """Every tensor and number in a state, with the path to it."""
    if isinstance(state, Mapping):
        for key, value in state.items():
            # The numbers by which an optimizer calls its parameters are not state.
            if key != "params" or len(path) < 2 or path[-2] != "param_groups":
                yield from entries(value, (*path, key))
    elif isinstance(state, (list, tuple)):
        for index, value in enumerate(state):
            yield from entries(value, (*path, index))
    elif isinstance(state, (Tensor, bool, int, float)):
        yield path, state


def replaced(state: Any, path: Path, value: Leaf) -> Any:  # states nest in any way
    """A copy of a state that holds the given value at ``path``."""
    if not path:
        return value
    if isinstance(state, tuple):
        return tuple(replaced(part, path[1:], value) if i == path[0] else part for i, part in enumerate(state))
    changed = state.copy()
    changed[path[0]] = replaced(state[path[0]], path[1:], value)
    return changed


def perturbed(value: Leaf) -> Leaf:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if value.dtype == torch.bool:
        return ~value
    return value + torch.ones_like(value) if value.is_floating_point() else value.flip(0) if value.ndim else value + 1


@rule("What a checkpoint holds and loading leaves out is lost in every run that is resumed.")
def every_entry_is_loaded(case: StateCase) -> str:
    """Each tensor and number of the state, changed and loaded, is what the part has; loading brings it back."""
    saved, count, refused = case.saved, 0, 0
    expected = case.expected()
    for path, value in entries(saved):
        other, part = perturbed(value), case.fresh()
        name = ".".join(map(str, path))
        try:
            part.load_state_dict(deepcopy(replaced(saved, path, other)))
        except Exception:  # a state that cannot be, such as a generator's with other bytes
            refused += 1
        else:
            _check_loaded(dict(entries(part.state_dict())), {path: other})
        part.load_state_dict(deepcopy(saved))
        _check_loaded(dict(entries(part.state_dict())), dict(entries(saved)))
        gap, where = largest_difference(case.output(part), expected)
        if gap:
            raise Violation(f"after {name} was changed and loaded back, {where} is {number(gap)} off, expected 0")
        count += 1
    if not count:
        raise NotApplicable("the state holds no tensor and no number")
    return f"{count} tensors and numbers" + (f", {refused} of which refuse other values" if refused else "")


def _check_loaded(there: dict[Path, Leaf], expected: dict[Path, Leaf]) -> None:
    for path, value in expected.items():
        if path not in there or _gap(there[path], value):
            name = ".".join(map(str, path))
            raise Violation(f"load_state_dict leaves {name} at {_short(there.get(path))}, expected {_short(value)}")


def _gap(first: Leaf, second: Leaf) -> float:
    return difference(torch.as_tensor(first), torch.as_tensor(second))


def _short(value: object) -> str:
    return one_line(value, 60)


@rule("Running statistics outside the state are gone after a restart: a resumed run or exported policy acts otherwise.")
def nothing_outside_the_state(case: StateCase) -> str:
    """A fresh part that loads a used one's state gives what the used one gives."""
    part = case.fresh()
    part.load_state_dict(deepcopy(case.saved))
    gap, where = largest_difference(case.output(part), case.expected())
    if gap:
        suspects = ", ".join(_outside(case.used, part)) or "not found"
        raise Violation(
            f"after {case.times} uses and a restart {where} is {number(gap)} off, expected 0: something that it "
            f"depends on is not in state_dict, or not loaded from it (what differs: {suspects})"
        )
    return f"after {case.times} uses and a restart outputs are the same"


def _outside(used: object, loaded: object) -> Iterator[str]:
    """Names of tensors and numbers that differ, in attributes and in the modules that attributes hold."""
    pairs: list[tuple[str, object, object]] = [("", used, loaded)]
    if not isinstance(used, nn.Module):
        pairs += [(f"{name}.", value, vars(loaded).get(name)) for name, value in vars(used).items()]
    for prefix, first, second in pairs:
        if isinstance(first, nn.Module) and isinstance(second, nn.Module):
            others = dict(second.named_modules())
            for name, module in first.named_modules():
                inside = f"{prefix}{name}." if name else prefix
                yield from _different(inside, vars(module), vars(others[name]))
                yield from _different(inside, _own_tensors(module), _own_tensors(others[name]))
        elif first is used:
            yield from _different(prefix, vars(first), vars(second))


def _own_tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}


def _different(prefix: str, first: Mapping[str, object], second: Mapping[str, object]) -> Iterator[str]:
    kinds = (Tensor, int, float)
    for name, value in first.items():
        other = second.get(name)
        if isinstance(value, kinds) and (not isinstance(other, kinds) or _gap(value, other)):
            yield f"{prefix}{name}"


STATE_RULES = (nothing_outside_the_state, every_entry_is_loaded)


def check_state(
    part: Stateful,
    use: Callable[..., object],
    *,
    make: Callable[[], Stateful] | None = None,
    times: int = 3,
    raises: bool = True,
) -> Report:
    """Check a part against the rules of state: what it depends on is saved, and everything saved is loaded.

    The part itself is not used; the doctor works on copies.

    Args:
        part: anything with ``state_dict`` and ``load_state_dict``: a module, a collector, a schedule.
        use: takes the part, does with it what training does, so that its statistics move, and returns what depends on
            it: tensors, numbers, or mappings of them.
        make: makes a fresh part; ``None``: ``part`` is copied.
        times: how often the part is used before it is saved.
        raises: whether a broken rule is an error; else the report says so.

    Raises:
        RuleBroken: where a rule is broken.

    >>> import torch
    >>> from ctde_kit.modules import ValueNorm
    >>> from ctde_kit.testing import check_state
    >>> def use(norm):
    ...     norm.update(torch.randn(5))
    ...     return norm.normalize(torch.ones(5))
    >>> print(check_state(ValueNorm(), use))
    check_state: ValueNorm
      nothing_outside_the_state  passed   after 3 uses and a restart outputs are the same
      every_entry_is_loaded      passed   3 tensors and numbers
    """
    return examine(f"check_state: {type(part).__name__}", STATE_RULES, StateCase(part, use, make, times), raises)
