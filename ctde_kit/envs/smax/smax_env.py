"""SMAX as a batched TorchRL environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.data import Categorical, Composite, TensorSpec, Unbounded
from torchrl.envs import EnvBase

from ctde_kit.envs.stand_in import Answering
from ctde_kit.errors import UserError
from ctde_kit.keys import DONE, STATE, TERMINATED, TRUNCATED, GroupKeys, Key
from ctde_kit.protocols import Outcome

if TYPE_CHECKING:
    from ctde_kit.envs.smax.battles import Battles, Seen, Stepped

KEYS = GroupKeys()
INFO = "info"
WON = (KEYS.group, INFO, "won")


class SmaxEnv(Answering, EnvBase):
    """SMAX (Rutherford et al. 2024, "JaxMARL"): allies against a scripted enemy, after StarCraft's SMAC.

    All battles are stepped by one compiled function of JAX, and torch copies what it shows (by way of ``dlpack``). In
    compiled rollouts (``ExternalEnv``) that function also begins a new battle where one ends.

    Entries, of the group ``agents``:

    - read by ``step``: ``(group, "action")`` ``[n_envs, n_agents]`` int64: four moves, stop, or whom to shoot;
    - written by ``reset`` and ``step``: ``(group, "observation")`` ``[n_envs, n_agents, F]``,
      ``(group, "action_mask")`` ``[n_envs, n_agents, A]``, ``state`` ``[n_envs, S]`` (SMAX's ``world_state``), and
      ``(group, "info", "won")`` ``[n_envs, n_agents, 1]``, 1 at the step at which the battle is won, so that the mean
      over episodes of its sum is the win rate;
    - written by ``step``: ``(group, "reward")`` ``[n_envs, n_agents, 1]``, the same for all: for damage to the enemy,
      which sums to 1 where all enemies fall, and ``won_battle_bonus`` for a win.

    A battle ends (``terminated``) once one side is dead, and is ``truncated`` after ``max_steps`` (SMAX itself reports
    both as its end). As in SMAC, a fallen ally stays in the team: it can only stop, sees zeros, and earns what the team
    earns, so that there is no ``(group, "mask")``.

    Args:
        num_envs: battles in the batch.
        map_name: of JaxMARL, such as ``3m``, ``2s3z`` or ``smacv2_5_units``.
        max_steps: steps after which a battle is truncated.
        seed: of the env's own random stream; ``None``: from the operating system.
        device: where torch's tensors live; JAX steps where JAX's default device is.
        arguments: of JaxMARL's ``SMAX``, such as ``see_enemy_actions``.

    Raises:
        UserError: where ``jaxmarl`` is missing, for a device that JAX does not reach, for an unknown map, for arguments
            that SMAX takes from the map, and for continuous actions.
    """

    def __init__(
        self,
        num_envs: int,
        map_name: str = "3m",
        *,
        max_steps: int = 100,
        seed: int | None = None,
        device: torch.device | str = "cpu",
        **arguments: Any,
    ):
        super().__init__(device=torch.device(device), batch_size=torch.Size([num_envs]))
        self._battles = _battles(map_name, arguments)
        _check_device(self.device)
        self.max_steps, agents = max_steps, self._battles.agents
        self.group_map = {KEYS.group: agents}
        self.elapsed = torch.zeros(num_envs, 1, dtype=torch.long, device=self.device)
        self._begun: Stepped | None = None
        self._set_seed(seed)
        self._keys, self._state, seen = self._battles.reset(self._keys)
        self._set_specs(len(agents), seen)
        zero = self.observation_spec.zero().update(self.full_done_spec.zero()).update(self.full_reward_spec.zero())
        self.outcome = Outcome(now=zero, last=zero.clone(), ended=zero.get(DONE).clone())
        self._show(seen, self.outcome.now)

    def _set_specs(self, n_agents: int, seen: Seen) -> None:
        batch, group = self.batch_size[0], (self.batch_size[0], n_agents)
        n_actions = seen.action_mask.shape[-1]
        in_group: dict[str, TensorSpec] = {
            "observation": _float32(seen.observation.shape),
            "action_mask": Categorical(2, shape=torch.Size((*group, n_actions)), dtype=torch.bool),
            INFO: Composite({"won": _float32((*group, 1))}, shape=group),
        }
        at_root: dict[str, TensorSpec] = {
            KEYS.group: Composite(in_group, shape=group),
            STATE: _float32(seen.world_state.shape),
        }
        actions = Composite({"action": Categorical(n_actions, shape=torch.Size(group))}, shape=group)
        rewards = Composite({"reward": _float32((*group, 1))}, shape=group)
        flag = Categorical(2, shape=torch.Size((batch, 1)), dtype=torch.bool)
        self.observation_spec = Composite(at_root, shape=(batch,)).to(self.device)
        self.action_spec = Composite({KEYS.group: actions}, shape=(batch,)).to(self.device)
        self.reward_spec = Composite({KEYS.group: rewards}, shape=(batch,)).to(self.device)
        flags = {name: flag.clone() for name in (DONE, TERMINATED, TRUNCATED)}
        self.done_spec = Composite(flags, shape=(batch,)).to(self.device)

    def _set_seed(self, seed: int | None) -> None:
        import jax  # pyright: ignore[reportMissingImports]  # an extra

        seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        self._keys, self._begun = jax.random.split(jax.random.key(seed), self.batch_size[0]), None

    def _reset(self, tensordict: TensorDictBase | None = None) -> TensorDictBase:
        if self._stand_in is not None:
            return self._stand_in.after_reset.copy()
        from ctde_kit.envs.smax.exchange import to_jax

        self._begun = None
        keys, state, seen = self._battles.reset(self._keys)
        mask = None if tensordict is None else tensordict.get("_reset", None)
        if mask is None or bool(mask.all()):
            self._keys, self._state = keys, state
            self.elapsed.zero_()
            self._show(seen, self.outcome.now)
        else:
            self._keys, self._state = self._battles.choose(
                to_jax(mask.reshape(-1)), (keys, state), (self._keys, self._state)
            )
            self.elapsed.masked_fill_(mask.reshape(-1, 1), 0)
            others = self.outcome.now.clone()
            self._show(seen, self.outcome.now)
            kept: Any = torch.where(mask.reshape(-1), self.outcome.now, others)
            self.outcome.now.copy_(kept)
        return self._offered(self.outcome.now.exclude(KEYS.reward).clone())

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        if self._stand_in is not None:
            return self._stand_in.step(tensordict)
        from ctde_kit.envs.smax.exchange import to_jax, to_torch

        self._begun = None
        actions = to_jax(tensordict.get(KEYS.action).to(torch.int32))
        self._keys, self._state, seen, rewards = self._battles.step(self._keys, self._state, actions)
        self.elapsed.add_(1)
        self._show(seen, self.outcome.now, to_torch(rewards, self.device))
        return self._offered(self.outcome.now.clone())

    def begin_step(self, actions: Mapping[Key, Tensor]) -> None:
        """Begin a step of every battle, and a new battle where one ends in it."""
        from ctde_kit.envs.smax.exchange import to_jax

        late = to_jax((self.elapsed + 1 >= self.max_steps).squeeze(-1))
        # JAX may read the actions later, when the caller's tensor has changed.
        copied = to_jax(actions[KEYS.action].to(torch.int32, copy=True))
        self._begun = self._battles.step_on(self._keys, self._state, copied, late)

    def finish_step(self) -> None:
        """Wait until ``outcome`` holds what the step gave."""
        from ctde_kit.envs.smax.exchange import to_torch

        assert self._begun is not None, "begin_step comes before finish_step"
        stepped, self._begun = self._begun, None
        outcome, rewards = self.outcome, to_torch(stepped.rewards, self.device)
        outcome.ended.copy_(to_torch(stepped.ended, self.device).unsqueeze(-1))
        self._keys, self._state = stepped.keys, stepped.state
        self.elapsed.add_(1)
        self._show(stepped.last, outcome.last, rewards)
        self.elapsed.masked_fill_(outcome.ended, 0)
        self._show(stepped.now, outcome.now, rewards)

    def obey_masks(self) -> None:
        """From now on random actions obey the masks in ``outcome``."""
        self._offered(self.outcome.now)

    def _show(self, seen: Seen, output: TensorDictBase, rewards: Tensor | None = None) -> None:
        """Write observations, done flags and rewards of a batch to ``output``."""
        from ctde_kit.envs.smax.exchange import to_torch

        observation, state, action_mask, won, terminated = (to_torch(part, self.device) for part in seen)
        terminated = terminated.unsqueeze(-1)
        truncated = ~terminated & (self.elapsed >= self.max_steps)
        written = {
            KEYS.observation: observation,
            KEYS.action_mask: action_mask,
            WON: won[:, None, None],
            STATE: state,
            TERMINATED: terminated,
            TRUNCATED: truncated,
            DONE: terminated | truncated,
        }
        if rewards is not None:
            written[KEYS.reward] = rewards.unsqueeze(-1)
        for key, value in written.items():
            output.get(key).copy_(value)

    def _offered(self, output: TensorDictBase) -> TensorDictBase:
        """``output``, after the action spec got its masks, so that random actions are allowed ones."""
        spec: Any = self.full_action_spec[KEYS.action]
        spec.update_mask(output.get(KEYS.action_mask).clone())
        return output

    def state_dict(self) -> dict[str, Any]:
        """All battles, their random streams and elapsed steps, and what was seen last."""
        from ctde_kit.envs.smax.exchange import saved

        battles: dict[str, Tensor] = saved(self._keys, self._state)
        return {"battles": battles, "elapsed": self.elapsed.clone(), "last": self.outcome.now.clone().to_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state that an env of the same map and size gave, bit for bit."""
        from ctde_kit.envs.smax.exchange import restored

        self._keys, self._state = restored(state_dict["battles"], self._state)
        self.elapsed.copy_(state_dict["elapsed"])
        self._begun = None
        self.outcome.now.update_(state_dict["last"])
        self._offered(self.outcome.now)


def _check_device(device: torch.device | None) -> None:
    import jax  # pyright: ignore[reportMissingImports]  # an extra

    if device is not None and device.type != "cpu" and jax.default_backend() == "cpu":
        raise UserError(
            f"device: expected cpu, where this JAX computes, found {device}; install JAX for the GPU to use it"
        )


def _float32(shape: Sequence[int]) -> TensorSpec:
    """The spec of JAX's numbers, whatever torch's default is."""
    return Unbounded(torch.Size(shape), dtype=torch.float32)


def _battles(map_name: str, arguments: dict[str, Any]) -> Battles:
    try:
        import jaxmarl  # noqa: F401  # pyright: ignore[reportUnusedImport, reportMissingImports]
    except ImportError as error:
        raise UserError('SMAX needs the package jaxmarl; pip install "ctde-kit[smax]"') from error
    from ctde_kit.envs.smax.battles import battles_of

    return battles_of(map_name, arguments)
