"""A collector that steps policy and env in this process, and whose checkpoints resume bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from tensordict import TensorDict, TensorDictBase, stack
from tensordict.nn import TensorDictModuleBase
from torch import nn
from torchrl.envs import EnvBase, TransformedEnv
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import RandomPolicy

from ctde_kit.collectors.compiled_external_rollout import CompiledExternalRollout
from ctde_kit.collectors.compiled_rollout import CompiledRollout
from ctde_kit.collectors.layers import base_of
from ctde_kit.collectors.trajectories import TRAJ_IDS, TrajectoryNumbers
from ctde_kit.errors import UserError
from ctde_kit.finite import check_finite
from ctde_kit.graph import TraceError
from ctde_kit.graph.toolchain import report_fallback
from ctde_kit.keys import DONE, NEXT
from ctde_kit.protocols import ExternalEnv, ReportsCapture, StateDict


class RolloutCollector:
    """Yields batches ``[n_envs, T]`` of consecutive steps; episodes continue from one batch to the next.

    It has the interface of TorchRL's ``Collector`` (iteration, ``update_policy_weights_``, ``state_dict``,
    ``shutdown``). It differs in that ``state_dict`` holds the env's state, the running episodes and the recurrent
    states, so that a resumed run continues bit for bit. An env whose state cannot be captured (its base env has
    ``state_is_captured = False``) is reset whenever a checkpoint is taken, so that the uninterrupted run and the
    resumed one do the same.

    Args:
        env: a batched env, batch size ``[n_envs]``, or a function that builds one.
        policy: writes the action; it is called under ``ExplorationType.RANDOM``. ``None``: random actions.
        frames_per_batch: frames (env transitions, not agent steps) per batch, a multiple of ``n_envs``.
        total_frames: stop once this many frames are collected; -1: never.
        device: where env and policy are moved; ``None``: they stay where they are.
        storing_device: where batches are moved; ``None``: they stay on the env's device.
        postproc: a function that each batch goes through before it is yielded.
        traj_ids: also write ``("collector", "traj_ids")``, int64 ``[n_envs, T]``: a number for each episode, by which
            TorchRL's ``split_trajectories`` tells episodes apart.
        compile: run policy and env as one compiled step, if the env is a ``PureEnv`` and both can be traced. Episodes
            that end within a batch are followed by initial states that were drawn before it; where these do not
            suffice, the batch is collected again eagerly. Around an ``ExternalEnv``, such as a worker env, policy and
            transforms are compiled. Otherwise one warning says why not, and steps are eager.

    Raises:
        UserError: for an env without a batch dimension, or a number of frames that ``n_envs`` does not divide.

    >>> import ctde_kit as ck
    >>> env = ck.VmasEnv("navigation", num_envs=2, max_steps=5)
    >>> policy = ck.modules.RandomActor(ck.TeamSpec.from_env(env)["agents"])
    >>> collector = ck.RolloutCollector(env, policy, frames_per_batch=6, total_frames=12)
    >>> [batch["next", "done"].sum().item() for batch in collector], collector.frames
    ([0, 2], 12)
    """

    def __init__(
        self,
        env: EnvBase | Callable[[], EnvBase],
        policy: TensorDictModuleBase | None = None,
        *,
        frames_per_batch: int,
        total_frames: int = -1,
        device: torch.device | str | None = None,
        storing_device: torch.device | str | None = None,
        postproc: Callable[[TensorDictBase], TensorDictBase] | None = None,
        traj_ids: bool = False,
        compile: bool = False,
    ):
        env = env if isinstance(env, EnvBase) or not callable(env) else env()
        if len(env.batch_size) != 1:
            raise UserError(f"collector: expected an env of batch size [n_envs], found {list(env.batch_size)}")
        n_envs = env.batch_size[0]
        if frames_per_batch < n_envs or frames_per_batch % n_envs:
            raise UserError(
                f"frames_per_batch={frames_per_batch}: expected a multiple of the {n_envs} envs, such as "
                f"{n_envs * max(1, round(frames_per_batch / n_envs))}"
            )
        if total_frames < 0 and total_frames != -1:
            raise UserError(f"total_frames={total_frames}: expected a number of frames, or -1 for no end")
        acts: Callable[[TensorDictBase], TensorDictBase]
        acts = RandomPolicy(env.full_action_spec) if policy is None else policy
        if device is not None:
            env = env.to(torch.device(device))
            acts = acts.to(torch.device(device)) if isinstance(acts, nn.Module) else acts
        self.env, self.policy = env, acts
        self.storing_device, self.postproc = storing_device, postproc
        self.trajectories = TrajectoryNumbers(n_envs) if traj_ids else None
        self.length = frames_per_batch // n_envs
        self.total_frames, self.frames = total_frames, 0
        self.compile, self.recent_resets = compile, 0.0
        self._compiled: CompiledRollout | CompiledExternalRollout | None = None
        self._next_root: TensorDictBase | None = None

    def __iter__(self) -> Iterator[TensorDictBase]:
        while self.total_frames == -1 or self.frames < self.total_frames:
            batch = self.rollout()
            self.frames += batch.numel()
            if self.trajectories is not None:
                batch.set(TRAJ_IDS, self.trajectories(batch.get((NEXT, DONE))))
            batch = batch if self.storing_device is None else batch.to(self.storing_device)
            yield batch if self.postproc is None else self.postproc(batch)

    @torch.no_grad()
    def rollout(self) -> TensorDictBase:
        """One batch ``[n_envs, T]``."""
        next_root = self.env.reset() if self._next_root is None else self._next_root
        if self.compile and self._compiled is None:
            self._compile(next_root)
        if self.compile and self._compiled is not None:
            try:
                batch, next_root, self.recent_resets = self._compiled(next_root, self.recent_resets)
            except Exception:
                if isinstance(self._compiled, CompiledExternalRollout):
                    check_finite(self._compiled.root, self.frames)
                raise
            if isinstance(self._compiled, CompiledExternalRollout):
                check_finite(batch, self.frames)
            if batch is not None:
                self._next_root = next_root
                return batch
        steps = []
        with set_exploration_type(ExplorationType.RANDOM):
            for _ in range(self.length):
                try:
                    step, next_root = self.env.step_and_maybe_reset(self.policy(next_root))
                except Exception:
                    # A NaN that the env gave makes the policy's action NaN, which the env refuses: name the first NaN.
                    check_finite(next_root, self.frames)
                    raise
                steps.append(step)
        self._next_root = next_root
        return stack(steps, 1)

    def _compile(self, root: TensorDictBase) -> None:
        if not isinstance(self.policy, nn.Module):
            return self._run_eagerly(TraceError(f"{type(self.policy).__name__} is no module"))
        try:
            kind = CompiledExternalRollout if isinstance(base_of(self.env), ExternalEnv) else CompiledRollout
            self._compiled = kind(self.env, self.policy, root, self.length)
        except TraceError as reason:
            self._run_eagerly(reason)
        except Exception as reason:
            # A foreign policy may do anything: what it raises while it is traced is no reason to stop.
            lines = str(reason).splitlines() or [""]
            self._run_eagerly(TraceError(f"{type(reason).__name__}: {lines[0]}"))

    def _run_eagerly(self, reason: TraceError) -> None:
        self.compile = False
        report_fallback("the rollout", reason)

    def set_seed(self, seed: int, static_seed: bool = False) -> int | None:
        """Seed the env, as TorchRL's ``set_seed`` does; gives the seed for the next env."""
        return self.env.set_seed(seed, static_seed=static_seed)

    def update_policy_weights_(self, *_: object, **__: object) -> None:
        """Does nothing: the collector's policy and the trained one are the same object."""

    def shutdown(self) -> None:
        """Close the env."""
        self.env.close()

    @property
    def state_is_captured(self) -> bool:
        """Whether ``state_dict`` holds the env's running episodes; else taking it ends them."""
        base_env = base_of(self.env)
        return not isinstance(base_env, ReportsCapture) or base_env.state_is_captured

    def state_dict(self) -> StateDict:
        """Frames, env, transforms, and what the policy reads next.

        It ends all episodes of an env whose state cannot be captured.
        """
        base_env = base_of(self.env)
        state = {"frames": self.frames, "env": base_env.state_dict(), "transforms": {}, "next_root": None}
        # It determines how many initial states a compiled rollout draws, and so the random stream.
        state["recent_resets"] = self.recent_resets
        if isinstance(self.env, TransformedEnv):
            state["transforms"] = self.env.transform.state_dict()
        if not self.state_is_captured:
            self._next_root = None
            if self.trajectories is not None:
                self.trajectories.begin_all()
        elif self._next_root is not None:
            state["next_root"] = {_join(k): v.clone() for k, v in self._next_root.items(True, True)}
        if self.trajectories is not None:
            state["trajectories"] = self.trajectories.state_dict()
        return state

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Restore what ``state_dict`` returned."""
        self.frames, self.recent_resets = state_dict["frames"], state_dict["recent_resets"]
        if self.trajectories is not None and "trajectories" in state_dict:
            self.trajectories.load_state_dict(state_dict["trajectories"])
        base_env = base_of(self.env)
        next_root = state_dict["next_root"]
        if next_root is not None:
            # A first reset lets the env and its transforms build what they build lazily.
            like = self.env.reset()
            self._next_root = like.empty().update(_unflatten(next_root, like))
        else:
            self._next_root = None
        if isinstance(self.env, TransformedEnv):
            self.env.transform.load_state_dict(state_dict["transforms"])
        base_env.load_state_dict(state_dict["env"])


def _join(key: str | tuple[str, ...]) -> str:
    return key if isinstance(key, str) else "/".join(key)


def _unflatten(flat: dict[str, torch.Tensor], like: TensorDictBase) -> TensorDict:
    """Entries named ``"group/entry"`` as a TensorDict with the nested batch sizes of ``like``."""
    source = TensorDict({}, like.batch_size, device=like.device)
    groups = {key: value.batch_size for key, value in like.items() if isinstance(value, TensorDictBase)}
    for name, batch_size in groups.items():
        source.set(name, TensorDict({}, batch_size, device=like.device))
    for key, value in flat.items():
        parts = tuple(key.split("/"))
        source.set(parts if len(parts) > 1 else key, value.clone())
    return source
