"""A whole gradient step (loss, backward, clipping, optimizer) as one compiled graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from ctde_kit.graph import TraceError
from ctde_kit.graph.optimizers import calls_hooks, learning_rates, optimizer_tensors, read_learning_rates, traced_step
from ctde_kit.graph.toolchain import report_fallback
from ctde_kit.training.compiled_gradients import CompiledGradients, Gradients


class CompiledGradientStep:
    """A compiled gradient step for minibatches of one shape: returns the metrics, updates parameters in place.

    Learning rates may change between steps. An optimizer that cannot be traced runs eagerly after the compiled graph of
    the gradients, and one warning says so.

    Args:
        gradients: minibatch -> scalar metrics, and the gradient of each of ``parameters``.
        parameters: the parameters that ``gradients`` differentiates.
        optimizer: the optimizer of ``parameters``. It must have made a step, so that its state exists.
        minibatch: an example.
        parameters_and_buffers: all parameters and buffers that ``gradients`` reads.

    Raises:
        TraceError: if ``gradients`` branches on data, or its graph is too long.
    """

    def __init__(
        self,
        gradients: Callable[[TensorDictBase], Gradients],
        parameters: Sequence[nn.Parameter],
        optimizer: torch.optim.Optimizer,
        minibatch: TensorDictBase,
        parameters_and_buffers: Iterable[Tensor],
    ):
        self.gradients, self.parameters, self.optimizer = gradients, parameters, optimizer
        self.learning_rates = learning_rates(optimizer)
        param_ids = {id(parameter) for parameter in parameters}
        all_params = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self.other_params = [parameter for parameter in all_params if id(parameter) not in param_ids]
        self.optimizer_state, self.options = optimizer_tensors(optimizer), _options(optimizer)
        self.parameters_and_buffers = list({id(x): x for x in [*parameters_and_buffers, *parameters]}.values())
        self.addresses = [tensor.data_ptr() for tensor in self.parameters_and_buffers]
        changing = [*self.parameters_and_buffers, *self.other_params, *self.optimizer_state, *self.learning_rates]
        try:
            self.compiled, self.is_whole = CompiledGradients(self._whole_step, minibatch, changing), True
        except TraceError as reason:
            self.compiled = CompiledGradients(gradients, minibatch, self.parameters_and_buffers)
            self.is_whole = False
            report_fallback("the optimizer's step", reason)

    def _whole_step(self, minibatch: TensorDictBase) -> Gradients:
        metrics, gradients = self.gradients(minibatch)
        if self._has_other_gradients():
            raise TraceError("the optimizer has gradients of parameters that no loss here has")
        set_gradients(self.parameters, gradients)
        try:
            traced_step(self.optimizer, self.learning_rates)
        finally:
            set_gradients(self.parameters, [None] * len(gradients))
        return metrics, []

    def __call__(self, minibatch: TensorDictBase) -> dict[str, Tensor]:
        if self.is_whole:
            read_learning_rates(self.optimizer, self.learning_rates)
        metrics, gradients = self.compiled(minibatch)
        if not self.is_whole:
            set_gradients(self.parameters, gradients)
            self.optimizer.step()
        return metrics

    def is_stale(self) -> bool:
        """Whether parameters, optimizer state or options were replaced since compiling, which the graph cannot see."""
        places = zip(self.parameters_and_buffers, self.addresses, strict=True)
        if any(tensor.data_ptr() != address for tensor, address in places):
            return True
        if not self.is_whole:
            return False
        state = optimizer_tensors(self.optimizer)
        is_same_state = len(state) == len(self.optimizer_state) and all(
            now is before for now, before in zip(state, self.optimizer_state, strict=True)
        )
        return not is_same_state or _options(self.optimizer) != self.options or self._has_other_gradients()

    def _has_other_gradients(self) -> bool:
        return any(parameter.grad is not None for parameter in self.other_params)


def set_gradients(parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor | None]) -> None:
    """Set each parameter's ``grad``, which its optimizer reads."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient


def _options(optimizer: torch.optim.Optimizer) -> list[dict[str, object]]:
    """What a graph takes as constant: each group's options and parameters, and whether there are hooks."""
    return [
        *(
            {name: list(map(id, value)) if name == "params" else value for name, value in group.items() if name != "lr"}
            for group in optimizer.param_groups
        ),
        {"hooks": calls_hooks(optimizer)},
    ]
