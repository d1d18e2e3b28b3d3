"""Many PettingZoo environments in worker processes, as one batched TorchRL environment."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Categorical
from torchrl.envs import EnvBase

from ctde_kit.envs.stand_in import Answering
from ctde_kit.envs.workers.block_layout import (
    REPORTED,
    WENT_ON,
    Block,
    BlockLayout,
    last_key,
)
from ctde_kit.envs.workers.pool import WorkerPool
from ctde_kit.envs.workers.worker_specs import action_specs, done_specs, observation_specs, reward_specs
from ctde_kit.errors import UserError
from ctde_kit.keys import DONE, GroupKeys, Key
from ctde_kit.protocols import Outcome

logger = logging.getLogger("ctde_kit")


def env_seed(seed: int, epoch: int, index: int) -> int:
    """The seed (31 bits) that env ``index`` is reset with in epoch ``epoch`` of a run with ``seed``.

    >>> from ctde_kit.envs.workers import env_seed
    >>> env_seed(0, 0, 1) == env_seed(0, 0, 1), env_seed(0, 0, 1) == env_seed(0, 1, 1)
    (True, False)
    """
    return int(np.random.SeedSequence((seed, epoch, index)).generate_state(1)[0] >> 1)


class WorkerEnv(Answering, EnvBase):
    """``n_envs`` PettingZoo environments, stepped side by side; made by :func:`worker_env`.

    Entries, with ``n_agents`` of each group (the layout of TorchRL's ``PettingZooWrapper(use_mask=True,
    done_on_any=False, categorical_actions=True)`` with a batch dimension):

    - read by ``step``: ``(group, "action")`` ``[n_envs, n_agents]`` int64, or ``[n_envs, n_agents, F]``;
    - written by ``reset`` and ``step``: ``(group, "observation")`` ``[n_envs, n_agents, F]`` float32,
      ``(group, "mask")`` ``[n_envs, n_agents]`` bool, ``(group, "action_mask")`` ``[n_envs, n_agents, n_actions]`` bool
      where the environment has action masks or agents act in turn (there ``n_actions`` of a ``MultiDiscrete`` is the
      sum of its sizes), ``state`` ``[n_envs, S]`` float32 where it has ``state()``; ``done``, ``terminated``,
      ``truncated`` ``[n_envs, 1]`` bool, and each agent's ``(group, "done")``, ... ``[n_envs, n_agents, 1]``;
    - written by ``step``: ``(group, "reward")`` ``[n_envs, n_agents, 1]`` float32.

    Rules, and where they differ from TorchRL's wrapper:

    - The team is done when no agent is left. It terminated if every agent still there before that step terminated; else
      it was truncated, also where some agents terminated and others were truncated in one step (TorchRL: neither).
    - ``max_steps`` truncates the team and whoever is alive; a time limit is never a termination.
    - An agent that ended keeps the flags it ended with until the reset (TorchRL: terminated and truncated at once),
      with observation and reward zero whatever the environment still says of it, and mask False. Its actions are
      dropped (TorchRL passes them on). An agent may join late, but not come back. Where the environment flags an
      agent's end and has it go on without the flag, one warning names it, and ``agents_after_their_end`` lists it.
    - The mask is True for agents that are alive, and in the last observation of an episode for those that a time limit
      stopped, since their value is bootstrapped (TorchRL: False for all).
    - Where agents act in turn, an agent waits while another is on turn. It is alive, its mask is True (TorchRL: False),
      and it observes and is rewarded at every step. Its action mask allows action 0 alone (TorchRL: everything, or no
      mask), so that a policy's log-probability and entropy are 0, and its action is dropped. The action mask of the
      agent on turn is the environment's own, all True where it has none. Actions must be discrete, since no mask can
      forbid continuous ones.
    - The action mask of a dead agent is all True. Random actions obey the masks.
    - ``(group, "observation")`` is always one float32 array: a dictionary's action mask is taken out, other spaces than
      ``Box`` are flattened (``gymnasium.spaces.flatten``). Of the infos it keeps action masks, and the numbers
      that ``infos`` names.
    - ``Discrete`` actions count from 0, wherever the space starts. ``Box`` and ``MultiDiscrete`` actions are vectors
      here, and of the space's own shape to the environment. Observation specs are unbounded.
    - A default group whose agents differ is split, see :func:`~ctde_kit.envs.workers.block_layout.make_groups`.
    - Episodes start anew only through ``reset``, with or without a ``_reset`` mask: an env whose episode is over stays
      as it is, with rewards of zero.

    The state of the environments cannot be captured (``state_is_captured`` is False), so a checkpoint resets them, in
    the run that goes on as in the run that loads it: ``state_dict()``, which holds only the seed and the epoch, starts
    a new epoch of seeds, and the full ``reset`` that must follow seeds every env anew.

    Raises :class:`~ctde_kit.envs.workers.WorkerError` where an environment raises, or its process dies or hangs, where
    an agent comes back after its end, and for an action mask where there was none at the first reset; ``UserError`` for
    actions of the wrong shape.

    >>> from ctde_kit.envs.pettingzoo import pettingzoo_factory
    >>> from ctde_kit.envs.workers import worker_env
    >>> env = worker_env(pettingzoo_factory("mpe2/simple_spread_v3", N=3), n_envs=2, n_workers=1, max_steps=5)
    >>> env.rollout(5)["next", "agent", "reward"].shape
    torch.Size([2, 5, 3, 1])
    >>> env.close()
    """

    state_is_captured = False

    def __init__(self, pool: WorkerPool, layout: BlockLayout, seed: int | None, device: torch.device) -> None:
        super().__init__(device=device, batch_size=torch.Size((layout.n_envs,)))
        self.group_map = {group.name: list(group.agents) for group in layout.groups}
        self.changes = [f"{group.name} {change}" for group in layout.groups for change in group.changes]
        """What differs from the environment's own spaces, in words: a line per entry."""
        self.action_spec = action_specs(layout).to(device)
        self.observation_spec = observation_specs(layout).to(device)
        self.reward_spec = reward_specs(layout).to(device)
        self.done_spec = done_specs(layout).to(device)
        self._pool, self._warned = pool, False
        self._unreported = list(layout.infos)
        self._everyone = np.ones(layout.n_envs, dtype=np.bool_)
        self._no_seeds = np.full(layout.n_envs, -1, dtype=np.int64)
        self._share(pool.attach(layout), layout)
        self._set_seed(seed)
        self.is_closed = False

    def _share(self, block: Block, layout: BlockLayout) -> None:
        tensors = {key: torch.from_numpy(array) for key, array in block.items()}
        self._went_on = {name: block[name, WENT_ON] for name in self.group_map}
        self._reported, self._over, self._ended = block.get(REPORTED), block[DONE], block[last_key(DONE)][:, 0]
        self._actions = {GroupKeys(group.name).action: tensors[GroupKeys(group.name).action] for group in layout.groups}
        at_reset = cast(TensorDict, self.observation_spec.zero().update(self.full_done_spec.zero()).to("cpu"))
        at_step = at_reset.copy().update(self.full_reward_spec.zero().to("cpu"))
        self._at_reset, self._at_step, last = (
            data.named_apply(lambda key, _, at=at: tensors[at(key)], nested_keys=True)
            for data, at in ((at_reset, _itself), (at_step, _itself), (at_step, last_key))
        )
        self.outcome = Outcome(self._at_step, last, tensors[last_key(DONE)])
        self._masked = [
            (keys.action, keys.action_mask) for keys in map(GroupKeys, self.group_map) if keys.action_mask in block
        ]

    def _set_seed(self, seed: int | None) -> None:
        if seed is not None and seed < 0:
            raise UserError(f"seed: expected an integer >= 0 or None, found {seed}")
        self._seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        self._epoch, self._reseed = 0, False
        self._unseeded = self._everyone.copy()

    def get_extra_state(self) -> dict[str, int]:
        """What ``state_dict`` holds; starts a new epoch of seeds from the next full reset on."""
        self._epoch, self._reseed = self._epoch + 1, True
        return {"seed": self._seed, "epoch": self._epoch}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Go on, from the next full reset, where the run that saved ``state`` went on."""
        self._seed, self._epoch, self._reseed = state["seed"], state["epoch"], True

    def _reset(self, tensordict: TensorDictBase | None = None) -> TensorDictBase:
        if self._stand_in is not None:
            return self._stand_in.after_reset.copy()
        selected = self._selected(tensordict, "_reset")
        if self._reseed and selected.all():
            self._unseeded, self._reseed = self._everyone.copy(), False
        seeds = self._seeds(selected & self._unseeded)
        if self._unreported and self._over[selected].any():
            self._warn_of_unreported()
        self._unseeded = self._unseeded & ~selected
        self._pool.reset(selected, seeds)
        return self._read(self._at_reset)

    def _seeds(self, unseeded: np.ndarray) -> np.ndarray:
        seeds = self._no_seeds.copy()
        for index in unseeded.nonzero()[0].tolist():
            seeds[index] = env_seed(self._seed, self._epoch, index)
        return seeds

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        if self._stand_in is not None:
            return self._stand_in.step(tensordict)
        self._pool.settle()
        self._write(tensordict)
        self._pool.step(self._selected(tensordict, "_step"))
        self._warn_of_steps_after_an_end()
        return self._read(self._at_step)

    def begin_step(self, actions: Mapping[Key, Tensor]) -> None:
        """Begin a step of every env, and a reset where an episode ends in it: seeded where ``set_seed`` came before."""
        self._pool.settle()
        self._write(actions)
        self._pool.begin_step_on(self._seeds(self._unseeded))

    def finish_step(self) -> None:
        """Wait until ``outcome`` holds what the step gave."""
        self._pool.finish()
        self._unseeded = self._unseeded & ~self._ended
        self._warn_of_steps_after_an_end()
        if self._unreported and self._ended.any():
            self._warn_of_unreported()

    def obey_masks(self) -> None:
        """From now on random actions obey the masks in ``outcome``."""
        self._update_masks(self._at_step)

    def _write(self, actions: Mapping[Key, Tensor] | TensorDictBase) -> None:
        for key, shared in self._actions.items():
            action = actions[key]
            if action.shape != shared.shape:
                raise UserError(f"{key}: expected shape {tuple(shared.shape)}, found {tuple(action.shape)}")
            shared.copy_(action)

    def _warn_of_steps_after_an_end(self) -> None:
        if not self._warned and any(np.count_nonzero(went_on) for went_on in self._went_on.values()):
            self._warned = True
            logger.warning(
                "%s: the environment flags the end and then goes on without the flag; until the reset all is masked, "
                "and nothing is learned from it: flag an end only where it is one, or leave the agent out of `agents`",
                " and ".join(self.agents_after_their_end),
            )

    @property
    def agents_after_their_end(self) -> list[str]:
        """Agents whose end the environment has flagged and that then went on without the flag, in any env so far."""
        return [
            agents[position]
            for name, agents in self.group_map.items()
            for position in np.flatnonzero(self._went_on[name].any(axis=0)).tolist()
        ]

    def _warn_of_unreported(self) -> None:
        """Say once, after an episode, which of the infos asked for no environment has reported."""
        assert self._reported is not None
        missing = [name for column, name in enumerate(self._unreported) if not self._reported[:, column].any()]
        if missing:
            names = " and no ".join(missing)
            logger.warning("infos: the environment has reported no %s in an episode, and 0 is kept", names)
        self._unreported = []

    def _selected(self, tensordict: TensorDictBase | None, key: Key) -> np.ndarray:
        mask = None if tensordict is None else tensordict.get(key, None)
        return self._everyone if mask is None else mask.view(-1).cpu().numpy()

    def _read(self, shared: TensorDictBase) -> TensorDictBase:
        """A copy of the shared block: the block itself changes under whoever keeps it."""
        data = shared.clone().to(self.device)
        self._update_masks(data)
        return data

    def _update_masks(self, data: TensorDictBase) -> None:
        for action, action_mask in self._masked:
            # Random actions obey the masks of the present observations.
            mask = data.get(action_mask).to(self.device, copy=True)
            cast(Categorical, self.full_action_spec[action]).update_mask(mask)

    def render_frame(self, env_index: int = 0) -> np.ndarray:
        """A picture uint8 ``[H, W, 3]`` of one environment.

        Raises ``UserError`` where the environments draw none, as without ``render_mode="rgb_array"``.
        """
        return self._pool.render(env_index)

    def close(self, *, raise_if_closed: bool = True) -> None:
        """End the worker processes; may be called again, whatever ``raise_if_closed`` says."""
        self._pool.close()
        super().close(raise_if_closed=raise_if_closed)


def _itself(key: Key) -> Key:
    return key
