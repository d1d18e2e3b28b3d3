"""Copies of tensors some of which show the same memory, so that their copies do, too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor


def copies_of(tensors: Iterable[Tensor]) -> dict[int, Tensor]:
    """A copy of each tensor, by its identity; those that share memory (views, above all) share it in their copies.

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
        base = None if len(group) == 1 else _covering(distinct, group)
        if base is None:
            copies |= {key: distinct[key].clone() for key in group}
            continue
        memory = base.clone()
        for key in group:
            tensor = distinct[key]
            offset = (tensor.data_ptr() - base.data_ptr()) // tensor.element_size()
            copies[key] = memory.as_strided(tensor.size(), tensor.stride(), offset)
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
    for key in sorted(
        tensors, key=lambda key: (str(tensors[key].device), str(tensors[key].dtype), _extent(tensors[key]))
    ):
        start, stop = _extent(tensors[key])
        found = (tensors[key].device, tensors[key].dtype)
        if found == kind and start < end:
            groups[-1].append(key)
            end = max(end, stop)
        else:
            groups.append([key])
            end, kind = stop, found
    return groups


def _covering(tensors: dict[int, Tensor], group: list[int]) -> Tensor | None:
    """The memory of a group as one tensor; ``None`` where no storage has it all."""
    start = min(_extent(tensors[key])[0] for key in group)
    stop = max(_extent(tensors[key])[1] for key in group)
    for key in group:
        tensor, storage = tensors[key], tensors[key].untyped_storage()
        if storage.data_ptr() <= start and stop <= storage.data_ptr() + storage.nbytes():
            size = tensor.element_size()
            return tensor.as_strided([(stop - start) // size], [1], (start - storage.data_ptr()) // size)
    return None


def _extent(tensor: Tensor) -> tuple[int, int]:
    """The addresses of the first byte and behind the last one."""
    start, size = tensor.data_ptr(), tensor.element_size()
    if tensor.numel() == 0:
        return start, start
    steps = sum((length - 1) * stride for length, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return start, start + size * (steps + 1)
