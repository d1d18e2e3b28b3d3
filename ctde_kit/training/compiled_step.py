"""Loss, backward, clip and the optimizer's step as one compiled graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from ctde_kit.graph import (
    TraceError,
    calls_hooks,
    learning_rates,
    optimizer_tensors,
    read_learning_rates,
    report_fallback,
    traced_step,
)
from ctde_kit.training.compiled_gradients import CompiledGradients, Gradients


class CompiledStep:
    """A gradient step on minibatches of one shape: gives the metrics, and moves parameters and moments in place.

    Learning rates may change between steps. An optimizer that cannot be traced runs behind the graph of the gradients.

    Args:
        gradients: minibatch -> metrics (scalars) and the gradient of each of ``parameters``.
        parameters: that ``optimizer`` learns.
        optimizer: it has made a step.
        minibatch: an example.
        live: parameters and buffers that ``gradients`` reads.

    Raises:
        TraceError: where ``gradients`` branches on data, or the graph is too long.
    """

    def __init__(
        self,
        gradients: Callable[[TensorDictBase], Gradients],
        parameters: Sequence[nn.Parameter],
        optimizer: torch.optim.Optimizer,
        minibatch: TensorDictBase,
        live: Iterable[Tensor],
    ):
        self.gradients, self.parameters, self.optimizer = gradients, parameters, optimizer
        self.learning_rates = learning_rates(optimizer)
        own = {id(parameter) for parameter in parameters}
        every = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self.strangers = [parameter for parameter in every if id(parameter) not in own]
        self.kept, self.constants = optimizer_tensors(optimizer), _constants(optimizer)
        self.live = list({id(x): x for x in [*live, *parameters]}.values())
        self.places = [tensor.data_ptr() for tensor in self.live]
        changing = [*self.live, *self.strangers, *self.kept, *self.learning_rates]
        try:
            self.compiled, self.is_whole = CompiledGradients(self._whole, minibatch, changing), True
        except TraceError as reason:
            self.compiled, self.is_whole = CompiledGradients(gradients, minibatch, self.live), False
            report_fallback("the optimizer's step", reason)

    def _whole(self, minibatch: TensorDictBase) -> Gradients:
        metrics, gradients = self.gradients(minibatch)
        if self._has_strange_gradients():
            raise TraceError("the optimizer has gradients of parameters that no loss here has")
        take_gradients(self.parameters, gradients)
        try:
            traced_step(self.optimizer, self.learning_rates)
        finally:
            take_gradients(self.parameters, [None] * len(gradients))
        return metrics, []

    def __call__(self, minibatch: TensorDictBase) -> dict[str, Tensor]:
        if self.is_whole:
            read_learning_rates(self.optimizer, self.learning_rates)
        metrics, gradients = self.compiled(minibatch)
        if not self.is_whole:
            take_gradients(self.parameters, gradients)
            self.optimizer.step()
        return metrics

    def is_stale(self) -> bool:
        """Whether tensors, state or options were replaced since, so that the graph would use the wrong ones."""
        if any(tensor.data_ptr() != place for tensor, place in zip(self.live, self.places, strict=True)):
            return True
        if not self.is_whole:
            return False
        kept = optimizer_tensors(self.optimizer)
        same = len(kept) == len(self.kept) and all(a is b for a, b in zip(kept, self.kept, strict=True))
        return not same or _constants(self.optimizer) != self.constants or self._has_strange_gradients()

    def _has_strange_gradients(self) -> bool:
        return any(parameter.grad is not None for parameter in self.strangers)


def take_gradients(parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor | None]) -> None:
    """Put each gradient where an optimizer reads it."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient


def _constants(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """The groups' options and parameters, and whether there are hooks."""
    return [
        *(
            {name: list(map(id, value)) if name == "params" else value for name, value in group.items() if name != "lr"}
            for group in optimizer.param_groups
        ),
        {"hooks": calls_hooks(optimizer)},
    ]
