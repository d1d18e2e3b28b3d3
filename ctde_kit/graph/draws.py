"""Random numbers of a graph: drawn outside it, in the order of the eager function, and passed in."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ctde_kit.graph.torch_calls import Arguments, Options, TorchFunction

_FRESH = {
    torch.rand: "rand",
    torch.randn: "randn",
    torch.randint: "randint",
    torch.randperm: "randperm",
}
_LIKE = {torch.rand_like: torch.rand, torch.randn_like: torch.randn}
_IN_PLACE = {Tensor.uniform_, Tensor.normal_, Tensor.exponential_, Tensor.random_}


@dataclass(frozen=True)
class Draw:
    """One call of a random function, to be made before each call of the graph."""

    function: Callable[..., Tensor]
    args: Arguments
    kwargs: Options

    def __call__(self) -> Tensor:
        return self.function(*self.args, **self.kwargs)


@dataclass(frozen=True)
class Fill:
    """An in-place random function, called on an empty tensor."""

    function: Callable[..., Tensor]
    shape: torch.Size
    dtype: torch.dtype
    device: torch.device
    args: Arguments = ()

    def __call__(self) -> Tensor:
        return self.function(torch.empty(self.shape, dtype=self.dtype, device=self.device), *self.args)


DrawSpec = Draw | Fill


class Source(Protocol):
    """Random generators apart from the program's."""

    def active(self) -> contextlib.AbstractContextManager[None]:
        """Inside the block numbers are drawn from this source."""
        ...


_sources: list[Source] = []


@contextlib.contextmanager
def drawing_from(source: Source) -> Iterator[None]:
    """Numbers drawn inside the block come from ``source``; so do those of a graph that is traced inside it."""
    _sources.append(source)
    try:
        with source.active():
            yield
    finally:
        _sources.pop()


def current_source() -> Source | None:
    """Where draws come from at this moment; ``None`` for the program's generators."""
    return _sources[-1] if _sources else None


def draw_all(draws: Sequence[tuple[Source | None, DrawSpec]]) -> list[Tensor]:
    """The numbers of one call, in order, each from its source."""
    drawn: list[Tensor] = []
    for source, group in itertools.groupby(draws, key=lambda draw: draw[0]):
        with source.active() if source is not None else contextlib.nullcontext():
            drawn += [draw() for _, draw in group]
    return drawn


def intercept_draw(
    func: TorchFunction, args: Arguments, kwargs: Options, draw: Callable[[DrawSpec], Tensor]
) -> Tensor | None:
    """The result of a random function from numbers that ``draw`` gives; ``None`` where the function is not random."""
    if func in _FRESH:
        return draw(Draw(func, args, kwargs))
    if func in _LIKE:
        options = {"dtype": args[0].dtype, "device": args[0].device, **kwargs}
        return draw(Draw(_LIKE[func], (args[0].shape,), options))
    if func in _IN_PLACE:
        spec = Fill(func, args[0].shape, args[0].dtype, args[0].device, (*args[1:], *kwargs.values()))
        return args[0].copy_(draw(spec))
    if func is torch.normal and isinstance(args[0], Tensor) and len(args) == 2 and not kwargs:
        mean, deviation = torch.broadcast_tensors(args[0], torch.as_tensor(args[1], device=args[0].device))
        noise = draw(Fill(Tensor.normal_, mean.shape, mean.dtype, mean.device))
        return noise * deviation + mean
    if func in (torch.multinomial, Tensor.multinomial) and _one_sample(args, kwargs):
        # Torch draws one sample in the same way.
        weights = args[0]
        noise = draw(Fill(Tensor.exponential_, weights.shape, weights.dtype, weights.device, (1,)))
        return (weights / noise).argmax(-1, keepdim=True)
    return None


def _one_sample(args: Arguments, kwargs: Options) -> bool:
    return (args[1] if len(args) > 1 else kwargs.get("num_samples")) == 1
