"""Differences between two outputs of a part, and entries that are changed on purpose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from tensordict import TensorDictBase
from torch import Tensor

GARBAGE = 100.0


def tensors_in(output: object, name: str = "output") -> dict[str, Tensor]:
    """All tensors and numbers in a part's output, by name."""
    if isinstance(output, Tensor):
        return {name: output}
    if isinstance(output, (bool, int, float)):
        return {name: torch.tensor(output)}
    if isinstance(output, TensorDictBase):
        return {str(key): value for key, value in output.items(True, True) if isinstance(value, Tensor)}
    if isinstance(output, Mapping):
        return {k: v for key, value in output.items() for k, v in tensors_in(value, str(key)).items()}
    if isinstance(output, (tuple, list)):
        return {k: v for index, value in enumerate(output) for k, v in tensors_in(value, f"{name}[{index}]").items()}
    return {}


def difference(first: Tensor, second: Tensor) -> float:
    """The largest difference of two tensors; infinite for other shapes, or where one is NaN and the other is not."""
    if first.shape != second.shape:
        return float("inf")
    if first.numel() == 0:
        return 0.0
    same = (first == second) | ((first != first) & (second != second))
    gap = (first.detach().double() - second.detach().double()).abs()
    return float(gap.nan_to_num(nan=float("inf")).masked_fill(same, 0).max())


def largest_difference(first: object, second: object) -> tuple[float, str]:
    """The largest difference of two outputs, and the entry that has it."""
    ours, theirs = tensors_in(first), tensors_in(second)
    found = {name: difference(ours[name], theirs[name]) for name in ours if name in theirs}
    found |= {name: float("inf") for name in ours.keys() ^ theirs.keys()}
    name = max(found, key=lambda key: found[key], default="")
    return found.get(name, 0.0), name


def garbage_like(value: Tensor) -> Tensor:
    """Other values of the same kind: far ones for floats, randomly picked ones for integers, the opposite for flags."""
    if value.dtype == torch.bool:
        return ~value
    if value.is_floating_point():
        return GARBAGE * torch.randn_like(value)
    flat = value.flatten()
    return flat[torch.randint(len(flat), (len(flat),))].reshape(value.shape)


def moved(value: Tensor, scale: float = 1.0) -> Tensor:
    """A float tensor plus normal noise, whose deviation is ``scale`` times (the tensor's own plus 0.5)."""
    spread = value.detach().std(correction=0) if value.numel() > 1 else torch.zeros(())
    return value + scale * (spread.item() + 0.5) * torch.randn_like(value)


def gradients(total: Tensor, parameters: Iterable[Tensor]) -> list[Tensor | None]:
    """The gradient of each parameter; ``None`` where it gets none."""
    learned = list(parameters)
    if not learned or not total.requires_grad:
        return [None] * len(learned)
    return list(torch.autograd.grad(total, learned, retain_graph=True, allow_unused=True))


def size(gradient: Tensor | None) -> float:
    """The largest absolute entry of a gradient; 0 where there is none."""
    return 0.0 if gradient is None or gradient.numel() == 0 else float(gradient.detach().abs().max())


def number(value: float) -> str:
    """A figure for a message.

    >>> number(1.2093), number(0.0), number(3e-8)
    ('1.21', '0', '3e-08')
    """
    return f"{value:.3g}"
