"""Reads and writes through a boolean mask, as operations over the full shape."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ctde_kit.graph.torch_calls import Arguments, Options, TorchFunction
from ctde_kit.graph.trace_error import TraceError, calling_frame, site

_ELEMENTWISE = frozenset(
    """
    add sub mul div true_divide floor_divide remainder fmod pow neg negative abs sign square sqrt rsqrt exp log sin
    cos tan atan atan2 tanh sigmoid floor ceil round clamp clamp_min clamp_max clip minimum maximum max min where eq
    ne lt le gt ge logical_and logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_not bitwise_xor to
    float bool int long double clone detach contiguous nan_to_num zeros_like ones_like full_like truediv rtruediv
    radd rsub rmul rpow and or xor invert rdiv rand ror floordiv mod
    """.split()  # noqa: SIM905
)
_OVER_LAST_DIMENSIONS = frozenset(("norm", "vector_norm", "sum", "mean", "amax", "amin", "prod", "any", "all"))


class MaskedRows:
    """``tensor[mask]``, whose size depends on data, kept over the full shape.

    Elementwise operations apply to the full shape; operations that need the number of rows raise ``TraceError``.
    ``tensor[mask] = rows`` becomes ``where(mask, rows, tensor)``.

    Args:
        full: ``[*mask.shape, ...]``; its entries where the mask is false are never used.
        mask: bool.
    """

    def __init__(self, full: Tensor, mask: Tensor):
        self.full, self.mask = full, mask

    @classmethod
    def __torch_function__(
        cls, func: TorchFunction, types: object, args: Arguments = (), kwargs: Options | None = None
    ) -> MaskedRows:
        return _apply(func, args, kwargs or {})

    def __getattr__(self, name: str) -> Callable[..., MaskedRows]:
        method = getattr(Tensor, name, None)
        if not callable(method):
            raise _refusal(f"reads .{name}")
        return lambda *args, **kwargs: _apply(method, (self, *args), kwargs)

    def __getitem__(self, index: object) -> MaskedRows:
        return MaskedRows(self.full[_full_index(index, self.mask)], self.mask)

    def __setitem__(self, index: object, value: MaskedRows | Tensor | float) -> None:
        full = self.full.clone()
        full[_full_index(index, self.mask)] = value.full if isinstance(value, MaskedRows) else value
        self.full = full

    def __len__(self) -> int:
        raise _refusal("counts the rows")

    def __bool__(self) -> bool:
        raise _refusal("branches on the rows")


def _operator(name: str) -> Callable[..., MaskedRows]:
    function = getattr(Tensor, name)
    return lambda self, *args: _apply(function, (self, *args), {})


for _name in ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor"]:
    for _prefix in ("", "r", "i"):
        if hasattr(Tensor, f"__{_prefix}{_name}__"):
            setattr(MaskedRows, f"__{_prefix}{_name}__", _operator(f"__{_prefix}{_name}__"))
for _name in ["neg", "abs", "invert", "lt", "le", "gt", "ge", "eq", "ne"]:
    setattr(MaskedRows, f"__{_name}__", _operator(f"__{_name}__"))


def _apply(func: TorchFunction, args: Arguments, kwargs: Options) -> MaskedRows:
    values = (*args, *kwargs.values())
    mask = next(x for x in values if isinstance(x, MaskedRows)).mask
    if any(isinstance(x, MaskedRows) and x.mask is not mask for x in values):
        raise _refusal("combines rows of two masks")
    inner = next(x for x in values if isinstance(x, MaskedRows)).full.ndim - mask.ndim
    func, name, in_place = _out_of_place(func)
    reduces = name in _OVER_LAST_DIMENSIONS and _over_last_dimensions(args[1:], kwargs, inner)
    if name not in _ELEMENTWISE and not reduces:
        raise _refusal(f"calls {name}")
    for x in values:
        if isinstance(x, Tensor) and set(x.shape[: max(0, x.ndim - inner)]) - {1}:
            raise _refusal("combines rows with a tensor of another length")
    full = func(*map(_full, args), **{key: _full(value) for key, value in kwargs.items()})
    if in_place:
        args[0].full = full
        return args[0]
    return MaskedRows(full, mask)


def _out_of_place(func: TorchFunction) -> tuple[TorchFunction, str, bool]:
    """The function that gives a new tensor, its bare name, and whether ``func`` changes its first argument."""
    name = func.__name__
    bare = name.strip("_")
    if name.startswith("__i") and hasattr(Tensor, f"__{bare[1:]}__"):
        return getattr(Tensor, f"__{bare[1:]}__"), bare[1:], True
    if name.endswith("_") and not name.startswith("__"):
        return getattr(Tensor, bare), bare, True
    return func, bare, False


def _over_last_dimensions(args: Arguments, kwargs: Options, inner: int) -> bool:
    dim = kwargs.get("dim", next((x for x in args if isinstance(x, int) and not isinstance(x, bool)), None))
    return isinstance(dim, int) and -inner <= dim < 0


def _full(value: object) -> object:
    return value.full if isinstance(value, MaskedRows) else value


def _refusal(what: str) -> TraceError:
    return TraceError(f"{what} of a masked tensor at {site(calling_frame())}")


def _full_index(index: object, mask: Tensor) -> Arguments:
    """An index of the rows as an index of the full tensor."""
    index = index if isinstance(index, tuple) else (index,)
    if index and index[0] is Ellipsis:
        return index
    if not index or not (isinstance(index[0], slice) and index[0] == slice(None)):
        raise _refusal("picks single rows")
    return (slice(None),) * mask.ndim + index[1:]


def split_mask(index: object) -> tuple[Tensor, Arguments] | None:
    """The boolean mask with which an index begins, and the rest of the index; ``None`` if it begins with none."""
    index = index if isinstance(index, tuple) else (index,)
    if not index or not isinstance(index[0], Tensor) or index[0].dtype != torch.bool or index[0].ndim == 0:
        return None
    return index[0], index[1:]


def read_masked(tensor: Tensor, mask: Tensor, rest: Arguments) -> MaskedRows:
    """``tensor[mask, *rest]``."""
    return MaskedRows(tensor[(slice(None),) * mask.ndim + rest], mask)


def write_masked(tensor: Tensor, mask: Tensor, rest: Arguments, value: MaskedRows | Tensor | float) -> None:
    """``tensor[mask, *rest] = value``."""
    part = tensor[(slice(None),) * mask.ndim + rest] if rest else tensor
    if isinstance(value, MaskedRows):
        if value.mask is not mask:
            raise _refusal("writes rows of another mask")
        value = value.full
    elif isinstance(value, Tensor):
        inner = part.ndim - mask.ndim
        if value.ndim > inner and set(value.shape[: value.ndim - inner]) != {1}:
            raise _refusal("writes a tensor of another length")
    part.copy_(torch.where(mask.reshape(*mask.shape, *[1] * (part.ndim - mask.ndim)), value, part))
