"""Policy and env as one compiled step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import tensordict
import torch
import torchrl
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.envs import EnvBase, TransformedEnv
from torchrl.envs.utils import ExplorationType, set_exploration_type

from ctde_kit.graph import (
    Layout,
    PackageShortcuts,
    RowLayout,
    TraceError,
    compile_in_agreement,
    taking_shortcuts,
    trace,
    useful_threads,
)
from ctde_kit.keys import DONE
from ctde_kit.protocols import PureEnv

RESET = "_reset"
# Its transforms reset nothing where no env is done.
TORCHRL_SHORTCUTS = PackageShortcuts(torchrl, tensordict)
Result = TypeVar("Result")


class CompiledStep:
    """One step of policy and env, and the reset before it, as one graph from tensors to tensors.

    Inputs, in this order: the env's packed state, the packed carrier (what the policy reads), the packed rows of
    fresh initial states ``[n_envs, columns]``, where to reset to them (bool ``[n_envs, 1]``), how many fresh states
    are used up and how many there are (``int64 []``). Outputs: the packed step (as ``EnvBase.step`` gives it), the
    packed next carrier, the packed state, ``done`` ``[n_envs, 1]``, the rows of fresh states for the next reset
    ``[n_envs]``, and how many are used up then.

    Args:
        env: batch size ``[n_envs]``; its base env is a ``PureEnv``.
        policy: writes the action; it explores as ``ExplorationType.RANDOM`` has it.
        carrier: an example of what the policy reads, as ``env.reset`` gives it.

    Raises:
        TraceError: where env or policy cannot be a graph; the message says why, in one line.
    """

    def __init__(self, env: EnvBase, policy: TensorDictModuleBase, carrier: TensorDictBase):
        base_env: Any = env.base_env if isinstance(env, TransformedEnv) else env
        if not isinstance(base_env, PureEnv):
            raise TraceError(f"{type(base_env).__name__} keeps its state out of reach")
        self.env, self.policy, self.base_env = env, policy, base_env
        device = torch.device(carrier.device or "cpu")
        # Building it draws random numbers, which a run that is resumed later would draw a second time.
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            self._restoring(lambda: self._build(carrier))

    def _build(self, carrier: TensorDictBase) -> None:
        base_env, policy = self.base_env, self.policy
        fresh = base_env.draw_initial_states(1)
        self.state_layout = Layout.of(base_env.tensor_state.read())
        self.carrier_layout = Layout.of(carrier)
        self.fresh_layout = RowLayout.of(fresh)
        self.step_layout = Layout.of(carrier.empty())
        n_envs = carrier.batch_size[0]
        example = [
            *self.state_layout.pack(base_env.tensor_state.read()),
            *self.carrier_layout.pack(carrier),
            *self.fresh_layout.pack(fresh[:n_envs]),
            torch.zeros(n_envs, 1, dtype=torch.bool, device=carrier.device),
            torch.zeros((), dtype=torch.long, device=carrier.device),
            torch.ones((), dtype=torch.long, device=carrier.device),
        ]
        # TorchRL builds some specs when they are first used, which cannot be traced.
        self._restoring(lambda: self.plain(example))
        live = [*policy.parameters(), *policy.buffers()]
        self.graph, self.compiled = compile_in_agreement(
            self.plain,
            example,
            trace_graph=lambda exact: self._restoring(lambda: trace(self.plain, example, live, exact=exact)),
            following=self._following,
            restoring=self._restoring,
            threads=useful_threads(n_envs),
        )

    @torch.no_grad()
    @taking_shortcuts(TORCHRL_SHORTCUTS)
    def plain(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The step, operation by operation; the env is left in an arbitrary state."""
        layouts = (self.state_layout, self.carrier_layout, self.fresh_layout)
        packed = iter(inputs)
        state, carrier, fresh = ([next(packed) for _ in layout.dtypes] for layout in layouts)
        mask, used, available = packed
        # VMAS changes some of its tensors in place.
        self.base_env.tensor_state.write(self.state_layout.unpack(state).clone())
        root = self.carrier_layout.unpack(carrier).clone().set(RESET, mask)
        with (
            self.base_env.resets_to(self.fresh_layout.unpack(fresh)),
            set_exploration_type(ExplorationType.RANDOM),
        ):
            root = _where_reset(mask, self.env._reset(root), root.exclude(RESET))
            step = self.env.step(self.policy(root))
        following = self.env.step_mdp(step)
        done = following.get(DONE)
        order = done.reshape(-1).long().cumsum(0) + used
        self.step_layout = Layout.of(step)
        return [
            *self.step_layout.pack(step),
            *self.carrier_layout.pack(following),
            *self.state_layout.pack(self.base_env.tensor_state.read()),
            done.clone(),
            torch.minimum(order, available).clamp(min=1) - 1,
            order[-1].clone(),
        ]

    @torch.no_grad()
    def rollout(
        self, carrier: TensorDictBase, length: int, fresh: Sequence[Tensor]
    ) -> tuple[TensorDictBase, TensorDictBase]:
        """A batch ``[n_envs, length]`` and what the policy reads next, not yet reset where done.

        Args:
            carrier: what the policy reads first.
            length: steps.
            fresh: packed fresh initial states ``[n, columns]``; where more envs end before the last step than this,
                the last row is used again, and the batch must be thrown away.
        """
        device = carrier.device
        n_envs = carrier.batch_size[0]
        n_step, n_carrier = len(self.step_layout.dtypes), len(self.carrier_layout.dtypes)
        n_state = len(self.state_layout.dtypes)
        state = self.state_layout.pack(self.base_env.tensor_state.read())
        running = self.carrier_layout.pack(carrier)
        mask = torch.zeros(n_envs, 1, dtype=torch.bool, device=device)
        rows = torch.zeros(n_envs, dtype=torch.long, device=device)
        used, limit = torch.zeros((), dtype=torch.long, device=device), torch.tensor(fresh[0].shape[0], device=device)
        compiled, draw = self.compiled, self.graph.draw
        storage: list[Tensor] = []
        for t in range(length):
            picked = [part.index_select(0, rows) for part in fresh]
            outputs = compiled([*state, *running, *picked, mask, used, limit, *draw()])
            if not storage:
                storage = [
                    torch.empty(length, *part.shape, dtype=part.dtype, device=device) for part in outputs[:n_step]
                ]
            for part, kept in zip(outputs[:n_step], storage, strict=True):
                kept[t] = part
            running = outputs[n_step : n_step + n_carrier]
            state = outputs[n_step + n_carrier : n_step + n_carrier + n_state]
            mask, rows, used = outputs[-3:]
        self.base_env.tensor_state.write(self.state_layout.unpack(state).clone())
        batch = self.step_layout.unpack(storage, [length]).transpose(0, 1)
        return batch, self.carrier_layout.unpack(running).clone()

    def _restoring(self, function: Callable[[], Result]) -> Result:
        """Call ``function``, and put the env back as it was."""
        saved = self.base_env.state_dict()
        try:
            return function()
        finally:
            self.base_env.load_state_dict(saved)

    def _following(self, inputs: list[Tensor], outputs: Sequence[Tensor]) -> list[Tensor]:
        """The inputs after a step with these outputs, with resets of a third of the envs."""
        n_step, n_carrier = len(self.step_layout.dtypes), len(self.carrier_layout.dtypes)
        n_fresh = len(self.fresh_layout.dtypes)
        mask = torch.arange(inputs[-3].shape[0], device=inputs[-3].device).remainder(3) == 0
        carrier, state = outputs[n_step : n_step + n_carrier], outputs[n_step + n_carrier : -3]
        return [*state, *carrier, *inputs[-3 - n_fresh : -3], mask.unsqueeze(-1), *inputs[-2:]]


def _where_reset(mask: Tensor, reset: TensorDictBase, root: TensorDictBase) -> TensorDictBase:
    """Root entries after a reset; an env that was not reset now keeps its own, an ``is_init`` among them."""
    for key, new in reset.items(True, True):
        old = root.get(key, None)
        rows = mask.reshape(-1, *[1] * (new.ndim - 1))
        root.set(key, new if old is None else torch.where(rows, new, old))
    return root
