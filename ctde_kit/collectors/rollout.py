"""A collector that steps policy and env in this process, with all of its state in a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase, stack
from tensordict.nn import TensorDictModuleBase
from torchrl.envs import EnvBase, TransformedEnv
from torchrl.envs.utils import ExplorationType, set_exploration_type

from ctde_kit.collectors.compiled_rollout import CompiledRollout
from ctde_kit.errors import UserError
from ctde_kit.graph import TraceError, report_fallback
from ctde_kit.protocols import Stateful


class RolloutCollector:
    """Yields batches ``[n_envs, T]`` of consecutive steps; episodes go on from one batch to the next.

    It stands where TorchRL's ``Collector`` stands (iteration, ``update_policy_weights_``, ``state_dict``,
    ``shutdown``), and differs in that its ``state_dict`` holds the env, the running episodes and the recurrent states,
    so that a resumed run goes on bit for bit. An env whose state cannot be captured (its base env has
    ``state_is_captured = False``) is reset whenever a checkpoint is taken, in the
    run that goes on as in the resumed one.

    Args:
        env: a batched env, batch size ``[n_envs]``.
        policy: writes the action; it explores as ``ExplorationType.RANDOM`` has it.
        frames_per_batch: frames (env transitions, not agent steps) a batch, a multiple of ``n_envs``.
        total_frames: stop once this many frames are collected.
        compile: run policy and env as one compiled step, where the env is a ``PureEnv`` that can be traced; else it
            says in one line why not, and steps plainly. Envs that end within a batch go on from fresh initial states
            that were drawn before it; where these do not suffice, the batch is collected once more, plainly.

    Raises:
        UserError: for an env without a batch dimension, or a number of frames that ``n_envs`` does not divide.
    """

    def __init__(
        self,
        env: EnvBase,
        policy: TensorDictModuleBase,
        *,
        frames_per_batch: int,
        total_frames: int,
        compile: bool = False,
    ):
        if len(env.batch_size) != 1:
            raise UserError(f"collector: expected an env of batch size [n_envs], found {list(env.batch_size)}")
        n_envs = env.batch_size[0]
        if frames_per_batch < n_envs or frames_per_batch % n_envs:
            raise UserError(
                f"frames_per_batch={frames_per_batch}: expected a multiple of the {n_envs} envs, such as "
                f"{n_envs * max(1, round(frames_per_batch / n_envs))}"
            )
        self.env, self.policy = env, policy
        self.length = frames_per_batch // n_envs
        self.total_frames, self.frames = total_frames, 0
        self.compile, self.resets_seen = compile, 0.0
        self._compiled: CompiledRollout | None = None
        self._carrier: TensorDictBase | None = None

    def __iter__(self) -> Iterator[TensorDictBase]:
        while self.frames < self.total_frames:
            batch = self.rollout()
            self.frames += batch.numel()
            yield batch

    @torch.no_grad()
    def rollout(self) -> TensorDictBase:
        """One batch ``[n_envs, T]``."""
        carrier = self.env.reset() if self._carrier is None else self._carrier
        if self.compile and self._compiled is None:
            self._compile(carrier)
        if self.compile and self._compiled is not None:
            batch, carrier, self.resets_seen = self._compiled(carrier, self.resets_seen)
            if batch is not None:
                self._carrier = carrier
                return batch
        steps = []
        with set_exploration_type(ExplorationType.RANDOM):
            for _ in range(self.length):
                step, carrier = self.env.step_and_maybe_reset(self.policy(carrier))
                steps.append(step)
        self._carrier = carrier
        return stack(steps, 1)

    def _compile(self, carrier: TensorDictBase) -> None:
        try:
            self._compiled = CompiledRollout(self.env, self.policy, carrier, self.length)
        except TraceError as reason:
            self.compile = False
            report_fallback("the rollout", reason)

    def update_policy_weights_(self, *_: Any, **__: Any) -> None:
        """Nothing to do: the policy is the very object that the update changes."""

    def shutdown(self) -> None:
        """Close the env."""
        self.env.close()

    def state_dict(self) -> dict[str, Any]:
        base_env = _base(self.env)
        state = {"frames": self.frames, "env": base_env.state_dict(), "transforms": {}, "carrier": None}
        # How many fresh states a compiled rollout draws, and so its random stream, follows from this.
        state["resets_seen"] = self.resets_seen
        if isinstance(self.env, TransformedEnv):
            state["transforms"] = self.env.transform.state_dict()
        if getattr(base_env, "state_is_captured", True):
            if self._carrier is not None:
                state["carrier"] = {_join(k): v.clone() for k, v in self._carrier.items(True, True)}
        else:
            self._carrier = None
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.frames, self.resets_seen = state_dict["frames"], state_dict["resets_seen"]
        base_env = _base(self.env)
        carrier = state_dict["carrier"]
        if carrier is not None:
            # A first reset lets the env and its transforms build what they build lazily.
            like = self.env.reset()
            self._carrier = like.empty().update(_unflatten(carrier, like))
        else:
            self._carrier = None
        if isinstance(self.env, TransformedEnv):
            self.env.transform.load_state_dict(state_dict["transforms"])
        base_env.load_state_dict(state_dict["env"])


def _base(env: EnvBase) -> Stateful:
    return getattr(env, "base_env", env)


def _join(key: str | tuple[str, ...]) -> str:
    return key if isinstance(key, str) else "/".join(key)


def _unflatten(flat: dict[str, torch.Tensor], like: TensorDictBase) -> TensorDict:
    source = TensorDict({}, like.batch_size, device=like.device)
    groups = {key: value.batch_size for key, value in like.items() if isinstance(value, TensorDictBase)}
    for name, batch_size in groups.items():
        source.set(name, TensorDict({}, batch_size, device=like.device))
    for key, value in flat.items():
        parts = tuple(key.split("/"))
        source.set(parts if len(parts) > 1 else key, value.clone())
    return source
