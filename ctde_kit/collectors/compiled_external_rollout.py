"""Batches of an env that steps outside of torch, with what lies between its steps compiled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn
from torchrl.envs import Compose, EnvBase, InitTracker, RewardSum, TensorDictPrimer, Transform
from torchrl.envs.utils import ExplorationType, set_exploration_type

from ctde_kit.collectors.compiled_rollout_step import RESET, TORCHRL_SHORTCUTS, modules_around, where_reset
from ctde_kit.collectors.layers import base_of, transforms_of
from ctde_kit.graph import TraceError, trace
from ctde_kit.graph.agreement import compile_in_agreement
from ctde_kit.graph.module_state import check_module_state, restoring_modules
from ctde_kit.graph.packing import Layout, PackedSteps
from ctde_kit.graph.shortcuts import taking_shortcuts
from ctde_kit.graph.toolchain import useful_threads
from ctde_kit.graph.tracing import Compiled, Graph
from ctde_kit.keys import Key
from ctde_kit.protocols import ExternalEnv, SaysStateless

# What they write depends on what they read alone, and they end no episodes.
STATELESS = (Compose, InitTracker, RewardSum, TensorDictPrimer)


class CompiledExternalRollout:
    """Collects batches ``[n_envs, length]`` of an ``ExternalEnv`` with two compiled functions.

    One acts: the policy and the inverse transforms, from the root (what the policy reads) to the actions. One takes in
    what the env gave: the transforms of steps and resets, to the step as ``EnvBase.step`` returns it and the next root.
    TensorDicts go in and out packed, by a ``graph.packing.Layout``. Random numbers are drawn as on the eager path.

    Args:
        env: batch size ``[n_envs]``; its base env is an ``ExternalEnv``.
        policy: writes the action; it explores as under ``ExplorationType.RANDOM``.
        root: an example of what the policy reads, as ``env.reset`` returns it.
        length: steps per batch.

    Raises:
        TraceError: if policy or transforms cannot be traced, or a transform is none of ``STATELESS`` and does not say
            that it keeps nothing from call to call; the message says why, in one line.
    """

    def __init__(self, env: EnvBase, policy: TensorDictModuleBase, root: TensorDictBase, length: int):
        base_env = base_of(env)
        if not isinstance(base_env, ExternalEnv):
            raise TraceError(f"{type(base_env).__name__} keeps its state out of reach")
        _check_transforms(env)
        self.env, self.policy, self.length = env, policy, length
        self.external: ExternalEnv = base_env
        self.action_keys = cast(list[Key], list(base_env.action_keys))
        self.read_keys = [*env.observation_keys, *env.done_keys, *env.state_keys]
        self.zero_reset = base_env.observation_spec.zero().update(base_env.full_done_spec.zero())
        self.zero_step = self.zero_reset.copy().update(base_env.full_reward_spec.zero())
        device = torch.device(root.device or "cpu")
        # Tracing draws random numbers. A resumed run traces again, and this must not shift its random stream.
        with (
            torch.random.fork_rng([device] if device.type == "cuda" else []),
            restoring_modules(modules_around(env, policy)),
        ):
            self._build(root.select(*self.read_keys, strict=False))

    @torch.no_grad()
    def _build(self, root: TensorDictBase) -> None:
        self.root_layout, self.outcome_layout = Layout.of(root), Layout.of(self.zero_step)
        self.acted_layout = self.step_layout = Layout.of(root.empty())
        packed = self.root_layout.pack(root)
        n_envs, parameters_and_buffers = root.batch_size[0], [*self.policy.parameters(), *self.policy.buffers()]
        # TorchRL builds some specs when they are first used, which cannot be traced.
        acted = self.eager_act(packed)
        modules = modules_around(self.env, self.policy)
        check_module_state(modules, lambda: self.eager_act(packed))
        self.act, self.compiled_act = self._compile(self.eager_act, packed, parameters_and_buffers, n_envs)
        ended = torch.arange(n_envs, device=root.device).remainder(3).unsqueeze(-1) == 0
        outcomes = [part for _ in range(2) for part in _random_like(self.outcome_layout.pack(self.zero_step))]
        example = [*acted[: len(self.acted_layout.dtypes)], *outcomes, ended]
        self.eager_take_in(example)
        check_module_state(modules, lambda: self.eager_take_in(example))
        self.take_in, self.compiled_take_in = self._compile(self.eager_take_in, example, [], n_envs)
        # The env's own tensors, flat, in the order of the layout.
        self.now, self.last = (
            [
                [tensordict.get(key).reshape(-1) for key, _, of_leaf in self.outcome_layout.leaves if of_leaf == dtype]
                for dtype in self.outcome_layout.dtypes
            ]
            for tensordict in (self.external.outcome.now, self.external.outcome.last)
        )

    def _compile(
        self, function: ..., example: list[Tensor], parameters_and_buffers: Sequence[nn.Parameter | Tensor], n_envs: int
    ) -> tuple[Graph, Compiled]:
        return compile_in_agreement(
            function,
            example,
            trace_graph=lambda exact: trace(function, example, parameters_and_buffers, exact=exact),
            following=lambda inputs, _: inputs,
            restoring=lambda call: call(),
            threads=useful_threads(n_envs),
        )

    @torch.no_grad()
    @taking_shortcuts(TORCHRL_SHORTCUTS)
    def eager_act(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """From the packed root to what the policy wrote on it, packed, and each of the env's actions."""
        root = self.root_layout.unpack(inputs).clone()
        with (
            self.external.answering(self.zero_step, self.zero_reset) as asked,
            set_exploration_type(ExplorationType.RANDOM),
        ):
            acted = self.policy(root)
            self.acted_layout = Layout.of(acted)
            self.env.step(acted.clone())
        if len(asked) != 1:
            raise TraceError(f"a step of the env is {len(asked)} steps of its base env")
        return [*self.acted_layout.pack(acted), *(asked[0].get(key).clone() for key in self.action_keys)]

    @torch.no_grad()
    @taking_shortcuts(TORCHRL_SHORTCUTS)
    def eager_take_in(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """From the packed acted root, ``Outcome`` (``now`` and ``last`` packed) to the packed step and next root."""
        packed = iter(inputs)
        layouts = (self.acted_layout, self.outcome_layout, self.outcome_layout)
        acted, now, last = (layout.unpack([next(packed) for _ in layout.dtypes]).clone() for layout in layouts)
        (ended,) = packed
        answer = where_reset(~ended, now, last)
        with self.external.answering(answer, now.select(*self.zero_reset.keys(True, True))):
            step = self.env.step(acted)
            next_root = self.env.step_mdp(step)
            reset = self.env._reset(next_root.clone().set(RESET, ended))
        next_root = where_reset(ended, reset, next_root)
        self.step_layout = Layout.of(step)
        return [*self.step_layout.pack(step), *self.root_layout.pack(next_root)]

    @torch.no_grad()
    def __call__(
        self, root: TensorDictBase, recent_resets: float
    ) -> tuple[TensorDictBase | None, TensorDictBase, float]:
        """One batch, what the policy reads next, and ``recent_resets``, which is passed through."""
        device, external = root.device, self.external
        n_step, n_acted = len(self.step_layout.dtypes), len(self.acted_layout.dtypes)
        self._root: Sequence[Tensor] = self.root_layout.pack(root)
        steps = PackedSteps(self.length)
        noise_to_act = self.act.draw()
        for t in range(self.length):
            outputs = self.compiled_act([*self._root, *noise_to_act])
            external.begin_step(dict(zip(self.action_keys, outputs[n_acted:], strict=True)))
            # While the envs step: all random numbers up to the next step, in the eager path's order.
            noise = self.take_in.draw()
            if t + 1 < self.length:
                noise_to_act = self.act.draw()
            external.finish_step()
            outcome = [torch.cat(leaves).to(device) for leaves in (*self.now, *self.last)]
            ended = external.outcome.ended.to(device)
            outputs = self.compiled_take_in([*outputs[:n_acted], *outcome, ended, *noise])
            steps.put(t, outputs[:n_step])
            self._root = outputs[n_step:]
        external.obey_masks()
        batch = self.step_layout.unpack(steps.parts, [self.length]).transpose(0, 1)
        return batch, self.root.clone(), recent_resets

    @property
    def root(self) -> TensorDictBase:
        """What the policy reads next, in a call or after it."""
        return self.root_layout.unpack(self._root)


def _check_transforms(env: EnvBase) -> None:
    for transform in transforms_of(env):
        known = type(transform) in STATELESS or (isinstance(transform, SaysStateless) and transform.stateless)
        if isinstance(transform, Transform) and not known:
            raise TraceError(f"{type(transform).__name__} may keep something from step to step, or end episodes")


def _random_like(packed: Sequence[Tensor]) -> list[Tensor]:
    """Numbers and flags in which one outcome differs from another."""
    numbers = [torch.rand(part.shape, device=part.device) for part in packed]
    return [
        number.lt(0.5).to(part.dtype) if part.dtype == torch.bool else number.mul(2).to(part.dtype)
        for number, part in zip(numbers, packed, strict=True)
    ]
