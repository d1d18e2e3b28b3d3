"""A function from a minibatch to metrics and gradients as one compiled graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor

from ctde_kit.graph import compile_graph, trace

# Matrix products cannot be fused, so that an operation here takes three times as long to compile as one of an env.
MOST_OPERATIONS = 5_000
Gradients = tuple[dict[str, Tensor], list[Tensor | None]]


class CompiledGradients:
    """The compiled form of ``function``, for minibatches of one shape; called as ``function`` is.

    Each call writes the same entries into the minibatch as ``function`` does, and changes the same tensors in place.
    Compiling itself changes none of them.

    Args:
        function: minibatch -> scalar metrics, and gradients.
        minibatch: an example.
        mutable_tensors: parameters, buffers and other tensors that ``function`` reads, and whose values change between
            calls or by a call.

    Raises:
        TraceError: if ``function`` branches on data, or its graph is too long.
    """

    def __init__(
        self,
        function: Callable[[TensorDictBase], Gradients],
        minibatch: TensorDictBase,
        mutable_tensors: Iterable[Tensor],
    ):
        self.empty = minibatch.empty(recurse=True)
        self.keys = [key for key, _ in minibatch.items(True, True)]
        self.written: list[NestedKey] = []
        self.names: list[str] = []
        self.used: list[bool] = []
        self.function = function
        leaves, mutable = self._leaves(minibatch), list(mutable_tensors)
        saved = [tensor.detach().clone() for tensor in mutable]
        # Tracing draws random numbers. A resumed run traces again, and must not shift its random stream by that.
        with torch.random.fork_rng([leaf.device for leaf in leaves[:1] if leaf.device.type == "cuda"]):
            try:
                self.graph = trace(self._flat, leaves, mutable)
            finally:
                with torch.no_grad():
                    torch._foreach_copy_(mutable, saved)  # pyright: ignore[reportPrivateImportUsage]  # torch has no public one
        self.compiled = compile_graph(self.graph, largest=MOST_OPERATIONS)

    def _leaves(self, minibatch: TensorDictBase) -> list[Tensor]:
        return [minibatch.get(key) for key in self.keys]

    def _flat(self, leaves: list[Tensor]) -> list[Tensor]:
        """``function`` from a list of tensors to a list: stacked metrics, written entries, gradients."""
        minibatch: TensorDictBase = self.empty.copy()
        assert isinstance(minibatch, TensorDict)
        for key, leaf in zip(self.keys, leaves, strict=True):
            minibatch.set(key, leaf)
        with torch.enable_grad():
            metrics, gradients = self.function(minibatch)
        self.names, self.used = list(metrics), [gradient is not None for gradient in gradients]
        self.written = [key for key in minibatch.keys(True, True) if key not in self.keys]
        values = torch.stack([value.detach().float() for value in metrics.values()])
        written = [minibatch.get(key).detach() for key in self.written]
        return [values, *written, *[gradient for gradient in gradients if gradient is not None]]

    def __call__(self, minibatch: TensorDictBase) -> Gradients:
        values, *outputs = self.compiled([*self._leaves(minibatch), *self.graph.draw()])
        if values.is_cuda:
            # A CUDA graph overwrites its outputs at the next call.
            values, outputs = values.clone(), [output.clone() for output in outputs]
        for key, value in zip(self.written, outputs, strict=False):
            minibatch.set(key, value)
        gradients = iter(outputs[len(self.written) :])
        metrics = dict(zip(self.names, values.unbind(), strict=True))
        return metrics, [next(gradients) if used else None for used in self.used]
