"""One step of policy and env as one compiled graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import tensordict
import torch
import torchrl
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType, set_exploration_type

from ctde_kit.collectors.layers import base_of, transforms_of
from ctde_kit.graph import TraceError, trace
from ctde_kit.graph.agreement import compile_in_agreement
from ctde_kit.graph.module_state import check_module_state, restoring_modules
from ctde_kit.graph.packing import Layout, PackedSteps, RowLayout
from ctde_kit.graph.shortcuts import PackageShortcuts, taking_shortcuts
from ctde_kit.graph.toolchain import useful_threads
from ctde_kit.keys import DONE
from ctde_kit.protocols import PureEnv

RESET = "_reset"
# TorchRL's transforms only skip their work where no env is done.
TORCHRL_SHORTCUTS = PackageShortcuts(torchrl, tensordict)
Result = TypeVar("Result")


class CompiledRolloutStep:
    """One step of policy and env, and the partial reset before it, as a compiled function from tensors to tensors.

    TensorDicts go in and out packed, by a ``graph.packing.Layout``. Inputs, in this order: the env's state, the root
    (what the policy reads), one row of fresh initial states per env ``[n_envs, columns]``, the reset mask (bool
    ``[n_envs, 1]``), and how many fresh states are used and available (``int64 []`` each). Outputs: the step as
    ``EnvBase.step`` returns it, the next root, the next state, ``done`` ``[n_envs, 1]``, the row of the fresh state for
    each env's next reset ``[n_envs]``, and how many fresh states are used by then.

    Args:
        env: batch size ``[n_envs]``; its base env is a ``PureEnv``.
        policy: writes the action; it explores as under ``ExplorationType.RANDOM``.
        root: an example of what the policy reads, as ``env.reset`` returns it.

    Raises:
        TraceError: if env or policy cannot be traced; the message says why, in one line.
    """

    def __init__(self, env: EnvBase, policy: TensorDictModuleBase, root: TensorDictBase):
        base_env = base_of(env)
        if not isinstance(base_env, PureEnv):
            raise TraceError(f"{type(base_env).__name__} keeps its state out of reach")
        self.env, self.policy, self.base_env = env, policy, base_env
        device = torch.device(root.device or "cpu")
        # Tracing draws random numbers. A resumed run traces again, and this must not shift its random stream.
        with (
            torch.random.fork_rng([device] if device.type == "cuda" else []),
            restoring_modules(modules_around(env, policy)),
        ):
            self._restoring(lambda: self._build(root))

    def _build(self, root: TensorDictBase) -> None:
        base_env, policy = self.base_env, self.policy
        fresh = base_env.draw_initial_states(1)
        self.state_layout = Layout.of(base_env.tensor_state.read())
        self.root_layout = Layout.of(root)
        self.fresh_layout = RowLayout.of(fresh)
        self.step_layout = Layout.of(root.empty())
        n_envs = root.batch_size[0]
        example = [
            *self.state_layout.pack(base_env.tensor_state.read()),
            *self.root_layout.pack(root),
            *self.fresh_layout.pack(fresh[:n_envs]),
            torch.zeros(n_envs, 1, dtype=torch.bool, device=root.device),
            torch.zeros((), dtype=torch.long, device=root.device),
            torch.ones((), dtype=torch.long, device=root.device),
        ]
        # TorchRL builds some specs when they are first used, which cannot be traced.
        self._restoring(lambda: self.eager_step(example))
        self._restoring(lambda: check_module_state(modules_around(self.env, policy), lambda: self.eager_step(example)))
        parameters_and_buffers = [*policy.parameters(), *policy.buffers()]
        self.graph, self.compiled = compile_in_agreement(
            self.eager_step,
            example,
            trace_graph=lambda exact: self._restoring(
                lambda: trace(self.eager_step, example, parameters_and_buffers, exact=exact)
            ),
            following=self._next_inputs,
            restoring=self._restoring,
            threads=useful_threads(n_envs),
        )

    @torch.no_grad()
    @taking_shortcuts(TORCHRL_SHORTCUTS)
    def eager_step(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The outputs of the step without compiling; the env is left in an arbitrary state."""
        layouts = (self.state_layout, self.root_layout, self.fresh_layout)
        packed = iter(inputs)
        state, packed_root, fresh = ([next(packed) for _ in layout.dtypes] for layout in layouts)
        mask, used, available = packed
        # VMAS changes some of its tensors in place.
        self.base_env.tensor_state.write(self.state_layout.unpack(state).clone())
        root = self.root_layout.unpack(packed_root).clone().set(RESET, mask)
        with (
            self.base_env.resets_to(self.fresh_layout.unpack(fresh)),
            set_exploration_type(ExplorationType.RANDOM),
        ):
            root = where_reset(mask, self.env._reset(root), root.exclude(RESET))
            step = self.env.step(self.policy(root))
        next_root = self.env.step_mdp(step)
        done = next_root.get(DONE)
        order = done.reshape(-1).long().cumsum(0) + used
        self.step_layout = Layout.of(step)
        return [
            *self.step_layout.pack(step),
            *self.root_layout.pack(next_root),
            *self.state_layout.pack(self.base_env.tensor_state.read()),
            done.clone(),
            torch.minimum(order, available).clamp(min=1) - 1,
            order[-1].clone(),
        ]

    @torch.no_grad()
    def rollout(
        self, root: TensorDictBase, length: int, fresh: Sequence[Tensor]
    ) -> tuple[TensorDictBase, TensorDictBase]:
        """A batch ``[n_envs, length]``, and what the policy reads next, where done envs are not reset yet.

        Args:
            root: what the policy reads first.
            length: number of steps.
            fresh: packed fresh initial states ``[n, columns]``. If more than n episodes end before the last step, the
                last row is used repeatedly, and the caller must discard the batch.
        """
        device = root.device
        n_envs = root.batch_size[0]
        n_step, n_root = len(self.step_layout.dtypes), len(self.root_layout.dtypes)
        n_state = len(self.state_layout.dtypes)
        state = self.state_layout.pack(self.base_env.tensor_state.read())
        next_root = self.root_layout.pack(root)
        mask = torch.zeros(n_envs, 1, dtype=torch.bool, device=device)
        rows = torch.zeros(n_envs, dtype=torch.long, device=device)
        used, limit = torch.zeros((), dtype=torch.long, device=device), torch.tensor(fresh[0].shape[0], device=device)
        compiled, draw = self.compiled, self.graph.draw
        steps = PackedSteps(length)
        for t in range(length):
            picked = [part.index_select(0, rows) for part in fresh]
            outputs = compiled([*state, *next_root, *picked, mask, used, limit, *draw()])
            steps.put(t, outputs[:n_step])
            next_root = outputs[n_step : n_step + n_root]
            state = outputs[n_step + n_root : n_step + n_root + n_state]
            mask, rows, used = outputs[-3:]
        self.base_env.tensor_state.write(self.state_layout.unpack(state).clone())
        batch = self.step_layout.unpack(steps.parts, [length]).transpose(0, 1)
        return batch, self.root_layout.unpack(next_root).clone()

    def _restoring(self, function: Callable[[], Result]) -> Result:
        """The result of ``function``; the env's state is restored afterwards."""
        saved = self.base_env.state_dict()
        try:
            return function()
        finally:
            self.base_env.load_state_dict(saved)

    def _next_inputs(self, inputs: list[Tensor], outputs: Sequence[Tensor]) -> list[Tensor]:
        """The inputs of the step after the one with these outputs; every third env is reset."""
        n_step, n_root = len(self.step_layout.dtypes), len(self.root_layout.dtypes)
        n_fresh = len(self.fresh_layout.dtypes)
        mask = torch.arange(inputs[-3].shape[0], device=inputs[-3].device).remainder(3) == 0
        root, state = outputs[n_step : n_step + n_root], outputs[n_step + n_root : -3]
        return [*state, *root, *inputs[-3 - n_fresh : -3], mask.unsqueeze(-1), *inputs[-2:]]


def modules_around(env: EnvBase, policy: TensorDictModuleBase) -> list[nn.Module]:
    """The modules of a policy and of an env's transforms."""
    return [*policy.modules(), *transforms_of(env)]


def where_reset(mask: Tensor, reset: TensorDictBase, root: TensorDictBase) -> TensorDictBase:
    """Root entries after a partial reset: those of ``reset`` where ``mask`` is true, those of ``root`` elsewhere."""
    for key, new in reset.items(True, True):
        old = root.get(key, None)
        rows = mask.reshape(-1, *[1] * (new.ndim - 1))
        root.set(key, new if old is None else torch.where(rows, new, old))
    return root
