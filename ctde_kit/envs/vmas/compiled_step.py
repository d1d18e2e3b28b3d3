"""The step of a VMAS env as one compiled graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
from tensordict import TensorDictBase
from torch import Tensor

from ctde_kit.graph import (
    Layout,
    compile_in_agreement,
    trace,
    useful_threads,
)

if TYPE_CHECKING:
    from ctde_kit.envs.vmas.env import VmasEnv

Result = TypeVar("Result")


class CompiledVmasStep:
    """Physics, rewards, observations, done flags and time limit, from (state, actions) to (outputs, state').

    Between steps the state stays packed, beside VMAS's objects; ``flush`` writes it into them.

    Args:
        env: it has been reset.
        tensordict: an example with the actions.

    Raises:
        TraceError: where the scenario cannot be a graph; the message says why, in one line.
    """

    def __init__(self, env: VmasEnv, tensordict: TensorDictBase):
        self.env = env
        self.packed: list[Tensor] | None = None
        self.action_keys = [(group, "action") for group in env.group_map]
        self.state_layout = Layout.of(env.tensor_state.read())
        self.output_layout = Layout.of(tensordict.empty())
        example = [*self.state_layout.pack(env.tensor_state.read()), *self._actions(tensordict)]
        n_state = len(self.state_layout.dtypes)
        self.graph, self.compiled = compile_in_agreement(
            self.plain,
            example,
            trace_graph=lambda exact: self._restoring(lambda: trace(self.plain, example, exact=exact)),
            following=lambda inputs, outputs: [*outputs[-n_state:], *inputs[n_state:]],
            restoring=self._restoring,
            threads=useful_threads(env.batch_size[0]),
        )

    def _restoring(self, function: Callable[[], Result]) -> Result:
        """Call ``function``, and put the env back as it was."""
        saved = self.env.state_dict()
        try:
            return function()
        finally:
            self.env.load_state_dict(saved)

    def _actions(self, tensordict: TensorDictBase) -> list[Tensor]:
        return [tensordict.get(key) for key in self.action_keys]

    def plain(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The step, operation by operation, from packed state and actions to packed outputs and state."""
        n_state = len(self.state_layout.dtypes)
        # VMAS changes some of its tensors in place.
        self.env.tensor_state.write(self.state_layout.unpack(inputs[:n_state]).clone())
        output = self.env.plain_step(inputs[n_state:])
        self.output_layout = Layout.of(output)
        return [*self.output_layout.pack(output), *self.state_layout.pack(self.env.tensor_state.read())]

    @torch.no_grad()
    def __call__(self, tensordict: TensorDictBase) -> TensorDictBase:
        state = self.packed if self.packed is not None else self.state_layout.pack(self.env.tensor_state.read())
        outputs = self.compiled([*state, *self._actions(tensordict), *self.graph.draw()])
        n_outputs = len(self.output_layout.dtypes)
        self.packed = list(outputs[n_outputs:])
        return self.output_layout.unpack(outputs[:n_outputs])

    def flush(self) -> None:
        """Write the state into VMAS's objects."""
        packed, self.packed = self.packed, None
        if packed is not None:
            self.env.tensor_state.write(self.state_layout.unpack(packed).clone())
