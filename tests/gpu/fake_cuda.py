"""Tensors that are said to lie on a CUDA device, without one: they have shapes, dtypes and devices, and no numbers.

PyTorch's ``FakeTensorMode`` runs operations on them, in a CUDA build alone. It raises where devices are mixed, and
where a number would have to be read (a copy to the host, which on a real device waits for all that was launched).
"""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode


def fake_mode() -> FakeTensorMode:
    """The mode to move and to compute in; a real tensor that meets fake ones counts as one on the CPU."""
    return FakeTensorMode(allow_non_fake_inputs=True)


def fake(tensor: Tensor, mode: FakeTensorMode) -> Tensor:
    """A fake CUDA tensor of the same layout."""
    layout = mode.from_tensor(tensor.detach())
    with mode:
        return torch.empty_strided(layout.shape, layout.stride(), dtype=layout.dtype, device="cuda")


def move(module: nn.Module, mode: FakeTensorMode) -> None:
    """Replace all parameters and buffers, as ``module.to("cuda")`` does; what is shared stays shared."""
    moved: dict[Tensor, Tensor] = {}

    def of(tensor: Tensor) -> Tensor:
        if tensor.device.type != "cuda":
            moved.setdefault(tensor, fake(tensor, mode))
        return moved.get(tensor, tensor)

    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None and parameter.device.type != "cuda":
                if parameter not in moved:
                    moved[parameter] = nn.Parameter(of(parameter), requires_grad=parameter.requires_grad)
                part._parameters[name] = moved[parameter]
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = of(buffer)


def moved(data: TensorDictBase, mode: FakeTensorMode) -> TensorDictBase:
    """The same entries as fake CUDA tensors."""
    result = data.clone().clear_device_().apply(lambda tensor: fake(tensor, mode))
    assert result is not None
    return result


def devices(data: TensorDictBase) -> set[str]:
    """Where a batch's entries lie."""
    return {tensor.device.type for tensor in data.values(include_nested=True, leaves_only=True)}
