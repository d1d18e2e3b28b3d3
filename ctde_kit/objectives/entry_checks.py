"""Checks a batch against a loss's table of entries, before the loss computes anything from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from ctde_kit.entry_tables import Entry, EntryDtype, as_key
from ctde_kit.errors import UserError
from ctde_kit.keys import PADDING_MASK, Key

Read = Callable[[Key], object]
AxisSizes = dict[tuple[str, str], int]
"""Sizes that no spec gives, by group and axis; each is set by the first entry that has the axis."""


class EntryCheck:
    """Raises ``UserError`` unless the entries of a batch are what a table says.

    It compares shapes and dtypes. On a CPU it also looks for indices out of range; on another device the program would
    have to wait for the device. Nothing is checked inside ``torch.compile``; where the kit traces a graph, shapes and
    dtypes are checked once.

    Args:
        reader: the name of the loss that reads the entries, for errors.
        entries: the table; if several rows have the same key, the first one counts.
        padding_mask: the key of the mask that is false where a sequence is padded; indices there may be anything.

    >>> import torch
    >>> from tensordict import TensorDict
    >>> from ctde_kit.entry_tables import Entry
    >>> from ctde_kit.objectives.entry_checks import EntryCheck
    >>> check = EntryCheck("TeamReward", [Entry(("agents", "reward"), "*B n_agents 1", (3, 1), "float")])
    >>> check(TensorDict({("agents", "reward"): torch.zeros(5, 3)}, [5]))
    Traceback (most recent call last):
        ...
    ctde_kit.errors.UserError: TeamReward: key ('agents', 'reward'): expected float [5, n_agents=3, 1], found float32 \
[5, 3]
    """

    def __init__(self, reader: str, entries: Iterable[Entry], padding_mask: NestedKey = PADDING_MASK):
        self.reader, self._padding_mask = reader, as_key(padding_mask)
        by_key: dict[Key, Entry] = {}
        for entry in entries:
            by_key.setdefault(entry.key, entry)
        self.entries = tuple(by_key.values())
        self._indices = tuple(entry for entry in self.entries if entry.n_values or entry.dtype == "one-hot")

    def __call__(self, tensordict: TensorDictBase, float_dtype: torch.dtype | None = None) -> None:
        """Check a batch whose ``float`` entries are of ``float_dtype``; ``None`` for any floating dtype."""
        if torch.compiler.is_compiling():
            return
        batch, read = tuple(tensordict.shape), _reader(tensordict)
        known: AxisSizes = {}
        for entry in self.entries:
            value = read(entry.key)
            if value is None and entry.optional:
                continue
            if not (
                isinstance(value, Tensor)
                and _has_dtype(value.dtype, entry.dtype, float_dtype)
                and _has_shape(tuple(value.shape), batch, entry, known)
            ):
                raise UserError(f"{self.reader}: {_mistake(entry, value, tensordict, float_dtype, known)}")
        if get_proxy_mode() is None:
            for entry in self._indices:
                mistake = _index_mistake(entry, read, self._padding_mask)
                if mistake is not None:
                    raise UserError(f"{self.reader}: key {entry.key!r}: {mistake}")


def parameter_dtype(module: nn.Module) -> torch.dtype | None:
    """The floating dtype of a module's parameters; ``None`` where it has none."""
    return next((parameter.dtype for parameter in module.parameters() if parameter.is_floating_point()), None)


def _reader(tensordict: TensorDictBase) -> Read:
    """``tensordict.get(key, None)`` at a tenth of its cost: each nested tensordict is looked up once."""
    nodes: dict[tuple[str, ...], Callable[[str], object]] = {(): _getter(tensordict)}

    def node(path: tuple[str, ...]) -> Callable[[str], object]:
        if path not in nodes:
            nodes[path] = _getter(node(path[:-1])(path[-1]))
        return nodes[path]

    def read(key: Key) -> object:
        value = nodes[()](key) if isinstance(key, str) else node(key[:-1])(key[-1])
        # TensorDict wraps data that is no tensor; `get` unwraps it, and a wrapped None is a missing entry.
        return value if value is None or isinstance(value, Tensor) else tensordict.get(key, None)

    return read


def _getter(node: object) -> Callable[[str], object]:
    if type(node) is TensorDict:
        return dict(node.items()).get
    if isinstance(node, TensorDictBase):
        return lambda name: node.get(name, None)
    return lambda name: None


def _has_dtype(found: torch.dtype, expected: EntryDtype, float_dtype: torch.dtype | None) -> bool:
    if expected == "float":
        return found is float_dtype or (float_dtype is None and found.is_floating_point)
    if expected == "bool":
        return found is torch.bool
    if expected == "int64":
        return found is torch.int64
    if expected == "any float":
        return found.is_floating_point
    return expected == "any" or not (found.is_floating_point or found.is_complex)


def _has_shape(found: tuple[int, ...], batch: tuple[int, ...], entry: Entry, known: AxisSizes) -> bool:
    if found == batch + entry.sizes:
        return True
    n_axes = len(batch) + len(entry.sizes)
    if found[: len(batch)] != batch or (len(found) < n_axes if entry.is_open else len(found) != n_axes):
        return False
    for (name, expected), size in zip(entry.named_sizes, found[len(batch) :], strict=False):
        if size != (known.setdefault((entry.group, name), size) if expected is None else expected):
            return False
    return True


def _mistake(
    entry: Entry, value: object, tensordict: TensorDictBase, float_dtype: torch.dtype | None, known: AxisSizes
) -> str:
    """What is wrong with an entry that failed the check, in one line."""
    axes = [_axis(name, size or known.get((entry.group, name))) for name, size in entry.named_sizes]
    shape = [*map(str, tensordict.shape), *axes, *["..."] * entry.is_open]
    dtype = _name(float_dtype) if entry.dtype == "float" and float_dtype is not None else entry.dtype
    expected = f"expected {dtype} [{', '.join(shape)}]" if shape or not entry.is_open else f"expected {dtype}"
    if value is None:
        advice = entry.advice or f"found {sorted(map(str, tensordict.keys(True, True)))}"
        return f"key {entry.key!r} is missing: {expected}; {advice}"
    found = f"{_name(value.dtype)} {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
    return f"key {entry.key!r}: {expected}, found {found}"


def _axis(name: str, size: int | None) -> str:
    if size is None:
        return name
    return str(size) if name.isdigit() else f"{name}={size}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _index_mistake(entry: Entry, read: Read, padding_mask: Key) -> str | None:
    """What is wrong with living agents' indices; ``None`` if nothing is, or if they are not on the CPU."""
    value = read(entry.key)
    if not isinstance(value, Tensor) or value.device.type != "cpu" or value.numel() == 0:
        return None
    valid = _valid_agents(entry, read, value.ndim - len(entry.sizes), padding_mask)
    if entry.dtype == "one-hot":
        wrong = value.sum(-1) != 1
        if valid is not None:
            wrong = wrong & valid
        return "expected exactly one choice per agent, found none or several" if bool(wrong.any()) else None
    if valid is not None:
        value = value.masked_fill(~valid.reshape(*valid.shape, *[1] * (value.ndim - valid.ndim)), 0)
    columns = value.unbind(-1) if len(entry.n_values) > 1 else (value,)
    for column, n_values in zip(columns, entry.n_values, strict=True):
        low, high = (int(bound) for bound in torch.aminmax(column))
        if low < 0 or high >= n_values:
            return f"expected indices from 0 to {n_values - 1}, found {low if low < 0 else high}"
    return None


def _valid_agents(entry: Entry, read: Read, n_batch_axes: int, padding_mask: Key) -> Tensor | None:
    """Whose indices are checked, bool ``[*B, n_agents]``: those of living agents in steps that are not padding."""
    alive = None if entry.mask is None else read(entry.mask)
    alive, real_steps = alive if isinstance(alive, Tensor) else None, read(padding_mask)
    if not isinstance(real_steps, Tensor):
        return alive
    real_steps = real_steps.reshape(*real_steps.shape[:n_batch_axes], 1)
    return real_steps if alive is None else real_steps & alive
