"""A function from a minibatch to metrics and gradients, or a whole gradient step, as one compiled graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor

from ctde_kit.graph import compile_graph, trace

# Each matrix product ends a kernel: an operation takes three times as long to compile as one of an env.
MOST_OPERATIONS = 5_000
Gradients = tuple[dict[str, Tensor], list[Tensor | None]]


class CompiledGradients:
    """Stands where ``function`` stands, for minibatches of one shape.

    Entries that it writes are written, too, and tensors of ``live`` that it changes in place are changed at each call;
    tracing leaves them as they were.

    Args:
        function: minibatch -> metrics (scalars) and gradients.
        minibatch: an example.
        live: parameters, buffers and other tensors that ``function`` reads, and that change in place.

    Raises:
        TraceError: where ``function`` branches on data, or its graph is too long.
    """

    def __init__(
        self, function: Callable[[TensorDictBase], Gradients], minibatch: TensorDictBase, live: Iterable[Tensor]
    ):
        self.empty = minibatch.empty(recurse=True)
        self.keys = [key for key, _ in minibatch.items(True, True)]
        self.written: list[NestedKey] = []
        self.names: list[str] = []
        self.used: list[bool] = []
        self.function = function
        leaves, live = self._leaves(minibatch), list(live)
        saved = [tensor.detach().clone() for tensor in live]
        # Tracing draws random numbers, which a run that is resumed later would draw a second time.
        with torch.random.fork_rng([leaf.device for leaf in leaves[:1] if leaf.device.type == "cuda"]):
            try:
                self.graph = trace(self._flat, leaves, live)
            finally:
                with torch.no_grad():
                    torch._foreach_copy_(live, saved)  # pyright: ignore[reportPrivateImportUsage]
        self.compiled = compile_graph(self.graph, largest=MOST_OPERATIONS)

    def _leaves(self, minibatch: TensorDictBase) -> list[Tensor]:
        return [minibatch.get(key) for key in self.keys]

    def _flat(self, leaves: list[Tensor]) -> list[Tensor]:
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
        values, *found = self.compiled([*self._leaves(minibatch), *self.graph.draw()])
        if values.is_cuda:
            # A CUDA graph writes its results to the same place at each call.
            values, found = values.clone(), [x.clone() for x in found]
        for key, value in zip(self.written, found, strict=False):
            minibatch.set(key, value)
        gradients = iter(found[len(self.written) :])
        metrics = dict(zip(self.names, values.unbind(), strict=True))
        return metrics, [next(gradients) if used else None for used in self.used]
