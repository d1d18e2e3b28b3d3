"""The step of a VMAS simulation as one compiled graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from tensordict import TensorDict
from torch import Tensor

from ctde_kit.envs.vmas.simulation import VmasSimulation
from ctde_kit.envs.vmas.tensor_state import TensorState
from ctde_kit.graph import trace
from ctde_kit.graph.agreement import compile_in_agreement
from ctde_kit.graph.packing import Layout
from ctde_kit.graph.toolchain import useful_threads

Result = TypeVar("Result")


class CompiledSimulation:
    """The whole step, time limit included, as one compiled function from (state, actions) to (outputs, next state).

    It is called as ``VmasSimulation.step`` is. Between steps the state stays packed, outside VMAS's objects; ``flush``
    writes it into them.

    Args:
        simulation: one that has been reset.
        tensor_state: reads and writes its state.
        group_actions: an example of the actions, one tensor per group.

    Raises:
        TraceError: where the scenario cannot be a graph; the message says why, in one line.
    """

    def __init__(self, simulation: VmasSimulation, tensor_state: TensorState, group_actions: Sequence[Tensor]):
        self.simulation, self.tensor_state = simulation, tensor_state
        self.packed: list[Tensor] | None = None
        self.state_layout = Layout.of(tensor_state.read())
        self.output_layout = Layout.of(TensorDict())  # known once a step was made
        example = [*self.state_layout.pack(tensor_state.read()), *group_actions]
        n_state = len(self.state_layout.dtypes)
        self.graph, self.compiled = compile_in_agreement(
            self.eager,
            example,
            trace_graph=lambda exact: self._restoring(lambda: trace(self.eager, example, exact=exact)),
            following=lambda inputs, outputs: [*outputs[-n_state:], *inputs[n_state:]],
            restoring=self._restoring,
            threads=useful_threads(simulation.batch_size[0]),
        )

    def _restoring(self, function: Callable[[], Result]) -> Result:
        """Call ``function``, and put the simulation back as it was."""
        with self.simulation.unchanged():
            return function()

    def eager(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The step, operation by operation, from packed state and actions to packed outputs and next state."""
        n_state = len(self.state_layout.dtypes)
        # VMAS changes some of its tensors in place.
        self.tensor_state.write(self.state_layout.unpack(inputs[:n_state]).clone())
        output = self.simulation.step(inputs[n_state:])
        self.output_layout = Layout.of(output)
        return [*self.output_layout.pack(output), *self.state_layout.pack(self.tensor_state.read())]

    @torch.no_grad()
    def __call__(self, group_actions: Sequence[Tensor]) -> TensorDict:
        state = self.packed if self.packed is not None else self.state_layout.pack(self.tensor_state.read())
        outputs = self.compiled([*state, *group_actions, *self.graph.draw()])
        n_outputs = len(self.output_layout.dtypes)
        self.packed = list(outputs[n_outputs:])
        return self.output_layout.unpack(outputs[:n_outputs])

    def flush(self) -> None:
        """Write the state into VMAS's objects."""
        packed, self.packed = self.packed, None
        if packed is not None:
            self.tensor_state.write(self.state_layout.unpack(packed).clone())
