"""Copies of tensors some of which show the same memory, so that their copies do, too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor


def copies_of(tensors: Iterable[Tensor], device: torch.device | None = None) -> dict[int, Tensor]:
    """A copy of each tensor, by its identity; those that share memory (views, above all) share it in their copies.

    Args:
        tensors: of any shapes and dtypes; those of different dtypes share nothing in their copies.
        device: where the copies lie; ``None`` for where the tensors do.

    >>> import torch
    >>> scores = torch.zeros(3, 2)
    >>> first = scores[:, 0]
    >>> copies = copies_of([scores, first])
    >>> _ = copies[id(scores)].add_(1)
    >>> copies[id(first)], first
    (tensor([1., 1., 1.]), tensor([0., 0., 0.]))
    """
    distinct = {id(tensor): tensor.detach() for tensor in tensors}
    copies: dict[int, Tensor] = {}
    for group in overlapping(distinct):
        there = device or distinct[group[0]].device
        if len(group) == 1:
            copies[group[0]] = distinct[group[0]].to(there, copy=True)
            continue
        extents = {key: _extent(distinct[key]) for key in group}
        start, stop = min(first for first, _ in extents.values()), max(end for _, end in extents.values())
        size = distinct[group[0]].element_size()
        memory = torch.zeros((stop - start) // size, dtype=distinct[group[0]].dtype, device=there)
        for key in group:
            tensor = distinct[key]
            copy = memory.as_strided(tensor.size(), tensor.stride(), (extents[key][0] - start) // size)
            each_number_once(copy, like=tensor).copy_(each_number_once(tensor, like=tensor))
            copies[key] = copy
    return copies


def each_number_once(tensor: Tensor, like: Tensor) -> Tensor:
    """``tensor`` without what ``like`` shows several times (expanded dimensions), which cannot be written.

    >>> import torch
    >>> wide = torch.zeros(3, 1).expand(3, 4)
    >>> each_number_once(wide, like=wide).shape
    torch.Size([3, 1])
    """
    for dim, stride in enumerate(like.stride()):
        tensor = tensor.narrow(dim, 0, 1) if stride == 0 and tensor.shape[dim] > 1 else tensor
    return tensor


def overlapping(tensors: Mapping[int, Tensor]) -> list[list[int]]:
    """The keys of the tensors in groups, none of which shares memory with another one."""
    groups: list[list[int]] = []
    end, kind = 0, None
    for key in sorted(tensors, key=lambda key: (*map(str, _kind(tensors[key])), *_extent(tensors[key]))):
        start, stop = _extent(tensors[key])
        if _kind(tensors[key]) == kind and start < end:
            groups[-1].append(key)
            end = max(end, stop)
        else:
            groups.append([key])
            end, kind = stop, _kind(tensors[key])
    return groups


def _kind(tensor: Tensor) -> tuple[torch.device, torch.dtype]:
    """Where tensors differ in it they count as apart: a file cannot hold one memory as numbers of two kinds."""
    return tensor.device, tensor.dtype


def _extent(tensor: Tensor) -> tuple[int, int]:
    """The addresses of the first byte and behind the last one."""
    start, size = tensor.data_ptr(), tensor.element_size()
    if tensor.numel() == 0:
        return start, start
    steps = sum((length - 1) * stride for length, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return start, start + size * (steps + 1)
