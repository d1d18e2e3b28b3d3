"""Many small tensors as one flat tensor per dtype, so that a call passes few arguments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Where the leaves of a TensorDict lie when they are packed.

    >>> layout = Layout.of(TensorDict({"a": torch.zeros(2, 3), "b": torch.ones(2)}, [2]))
    >>> packed = layout.pack(TensorDict({"a": torch.zeros(2, 3), "b": torch.ones(2)}, [2]))
    >>> [tensor.shape for tensor in packed], layout.unpack(packed)["b"]
    ([torch.Size([8])], tensor([1., 1.]))
    """

    empty: TensorDictBase
    leaves: tuple[tuple[NestedKey, torch.Size, torch.dtype], ...]

    @classmethod
    def of(cls, tensordict: TensorDictBase) -> Layout:
        leaves = tuple((key, value.shape, value.dtype) for key, value in tensordict.items(True, True))
        return cls(tensordict.empty(recurse=True), leaves)

    @property
    def dtypes(self) -> list[torch.dtype]:
        return list(dict.fromkeys(dtype for _, _, dtype in self.leaves))

    def pack(self, tensordict: TensorDictBase) -> list[Tensor]:
        """One flat tensor per dtype, each leaf in one piece."""
        return [self._cat(tensordict, dtype) for dtype in self.dtypes]

    def _cat(self, tensordict: TensorDictBase, dtype: torch.dtype) -> Tensor:
        return torch.cat([tensordict.get(key).reshape(-1) for key, _, other in self.leaves if other == dtype])

    def unpack(self, packed: Sequence[Tensor], batch_size: Sequence[int] = ()) -> TensorDict:
        """The leaves as views of tensors ``[*batch_size, flat]``; their own batch size comes after ``batch_size``."""
        flat = dict(zip(self.dtypes, packed, strict=True))
        offsets = dict.fromkeys(flat, 0)
        result = TensorDict({}, [*batch_size, *self.empty.batch_size], device=self.empty.device)
        for key, value in self.empty.items(True):
            result.set(key, TensorDict({}, [*batch_size, *value.batch_size], device=self.empty.device))
        for key, shape, dtype in self.leaves:
            start, stop = offsets[dtype], offsets[dtype] + shape.numel()
            offsets[dtype] = stop
            result.set(key, flat[dtype][..., start:stop].reshape((*batch_size, *shape)))
        return result


@dataclass(frozen=True)
class RowLayout:
    """Like ``Layout``, but packed tensors have a row for each index of the first dimension: ``[n, columns]``."""

    leaves: tuple[tuple[NestedKey, torch.Size, torch.dtype], ...]

    @classmethod
    def of(cls, tensordict: TensorDictBase) -> RowLayout:
        return cls(tuple((key, value.shape[1:], value.dtype) for key, value in tensordict.items(True, True)))

    @property
    def dtypes(self) -> list[torch.dtype]:
        return list(dict.fromkeys(dtype for _, _, dtype in self.leaves))

    def pack(self, tensordict: TensorDictBase) -> list[Tensor]:
        """One tensor ``[n, columns]`` per dtype."""
        return [
            torch.cat(
                [
                    tensordict.get(key).flatten(1) if shape else tensordict.get(key).unsqueeze(1)
                    for key, shape, other in self.leaves
                    if other == dtype
                ],
                1,
            )
            for dtype in self.dtypes
        ]

    def unpack(self, packed: Sequence[Tensor]) -> TensorDict:
        """The leaves ``[n, ...]``."""
        flat = dict(zip(self.dtypes, packed, strict=True))
        offsets = dict.fromkeys(flat, 0)
        result = TensorDict({}, packed[0].shape[:1], device=packed[0].device)
        for key, shape, dtype in self.leaves:
            start, stop = offsets[dtype], offsets[dtype] + shape.numel()
            offsets[dtype] = stop
            result.set(key, flat[dtype][:, start:stop].reshape(-1, *shape))
        return result


class PackedSteps:
    """Packed tensors of consecutive steps, one ``[length, ...]`` for each that a step has.

    >>> steps = PackedSteps(3)
    >>> for t in range(3):
    ...     steps.put(t, [torch.full((2,), float(t))])
    >>> steps.parts[0].tolist()
    [[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]
    """

    def __init__(self, length: int):
        self.length = length
        self.parts: list[Tensor] = []

    def put(self, t: int, step: Sequence[Tensor]) -> None:
        """Copy what step ``t`` gave; the tensors may change afterwards."""
        if not self.parts:
            self.parts = [part.new_empty(self.length, *part.shape) for part in step]
        for part, stored in zip(step, self.parts, strict=True):
            stored[t] = part
