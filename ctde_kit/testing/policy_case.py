"""A policy under examination: its inputs, its outputs, and the hidden state that it carries."""

from __future__ import annotations

from functools import cached_property

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.data import TensorSpec
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import set_recurrent_mode

from ctde_kit.errors import UserError
from ctde_kit.keys import IS_INIT, NEXT
from ctde_kit.protocols import SaysDecentralized
from ctde_kit.testing.comparing import moved
from ctde_kit.testing.entry_names import EntryNames, as_tuple, leaves, under_next
from ctde_kit.testing.findings import NotApplicable
from ctde_kit.training.evaluation import evaluating

SEQUENCE = 6


class PolicyCase:
    """What the rules of policies check: a policy, and data that was collected with it.

    Args:
        policy: reads observations, writes actions.
        data: an env, which is rolled out with the policy, or what was collected with it, ``[*B, T]``.
        names: where the entries are.
        decentralized: whether each agent must act on its own data alone; ``None``: unless the policy says otherwise.
        steps: how many steps an env is rolled out for.
        env: whose spec says which actions it takes, where ``data`` are a batch.
    """

    def __init__(
        self,
        policy: TensorDictModuleBase,
        data: EnvBase | TensorDictBase,
        names: EntryNames,
        decentralized: bool | None,
        steps: int,
        env: EnvBase | None = None,
    ):
        self.policy, self.names = policy, names
        acted_in = data if isinstance(data, EnvBase) else env
        self.action_spec: TensorSpec | None = None if acted_in is None else acted_in.full_action_spec[names["action"]]
        if isinstance(data, EnvBase):
            with torch.no_grad(), set_exploration_type(ExplorationType.RANDOM):
                collected: TensorDictBase = data.rollout(steps, policy, break_when_any_done=False)
        else:
            collected = data
        if collected.ndim < 1 or as_tuple(names["action"]) not in leaves(collected):
            raise UserError(
                f"data: expected an env, or a batch [*B, T] with {names['action']!r}, found one {list(collected.shape)}"
            )
        self.data: TensorDictBase = collected.detach()
        self.decentralized = decentralized
        if decentralized is None and isinstance(policy, SaysDecentralized):
            self.decentralized = policy.decentralized

    @property
    def in_keys(self) -> list[tuple[str, ...]]:
        """The keys of all that the policy reads."""
        return [as_tuple(key) for key in self.policy.in_keys]

    @cached_property
    def hidden_keys(self) -> list[tuple[str, ...]]:
        """Where it keeps hidden states: entries that it reads and writes under ``next``."""
        written = {as_tuple(key) for key in self.policy.out_keys}
        return [key for key in self.in_keys if under_next(key) in written]

    def need_recurrent(self) -> None:
        """Skip a rule for a policy without a hidden state."""
        if not self.hidden_keys:
            raise NotApplicable("the policy keeps no hidden state: it writes nothing that it reads under 'next'")

    def need_agents(self) -> int:
        """How many agents there are; a single agent skips the rule."""
        return self.names.several_agents(self.data)

    def inputs(self, *batch: int) -> TensorDictBase:
        """Made-up inputs of this batch size, of the kind of the data's: noisy floats, all alive, zero hidden states."""
        flat = self.data.reshape(-1)
        count = int(torch.Size(batch).numel())
        rows = flat[torch.randint(len(flat), (count,))].clone()
        made = TensorDict({}, [count])
        for key in {*self.in_keys, *self._masks()}:
            value = rows.get(key, None)
            if value is None:
                continue
            if key in self.hidden_keys or key[-1] == IS_INIT:
                value = torch.zeros_like(value)
            elif key[-1] == as_tuple(self.names["mask"])[-1]:
                value = torch.ones_like(value)
            elif value.is_floating_point():
                value = moved(value)
            made.set(key, value)
        return made.reshape(*batch)

    def _masks(self) -> list[tuple[str, ...]]:
        return [as_tuple(self.names[name]) for name in ("action_mask", "mask") if self.names[name] in leaves(self.data)]

    @torch.no_grad()
    def act(self, inputs: TensorDictBase, *, greedy: bool = True, sequence: bool = False) -> TensorDictBase:
        """What the policy writes, in evaluation mode."""
        kind = ExplorationType.DETERMINISTIC if greedy else ExplorationType.RANDOM
        with evaluating(self.policy), set_exploration_type(kind), set_recurrent_mode(sequence):
            return self.policy(inputs.clone())

    def outputs(self, written: TensorDictBase, hidden: bool = False) -> dict[tuple[str, ...], Tensor]:
        """The entries that the policy wrote, hidden states left out unless asked for."""
        keys = [as_tuple(key) for key in self.policy.out_keys]
        carried = {*self.hidden_keys, *map(under_next, self.hidden_keys)}
        found: dict[tuple[str, ...], Tensor | None] = {key: written.get(key, None) for key in keys}
        found[as_tuple(self.names["action"])] = written.get(self.names["action"])
        return {key: value for key, value in found.items() if value is not None and (hidden or key not in carried)}

    def step_by_step(self, sequence: TensorDictBase) -> list[TensorDictBase]:
        """The policy's output in each step of ``[B, T]``, each from the hidden state that the step before wrote."""
        written: list[TensorDictBase] = []
        for step in sequence.clone().unbind(1):
            if written:
                for key in self.hidden_keys:
                    step.set(key, written[-1].get((NEXT, *key)))
            written.append(self.act(step))
        return written

    def sequence(self, batch: int = 3) -> TensorDictBase:
        """Made-up sequences ``[B, T]``; the second and third begin anew on the way."""
        made = self.inputs(batch, SEQUENCE)
        is_init = made.get(IS_INIT, None)
        if is_init is None:
            raise NotApplicable(f"the policy reads no {IS_INIT!r}, so it cannot know where an episode begins")
        is_init[:, 0] = True
        is_init[1, SEQUENCE // 2] = True
        is_init[2, SEQUENCE - 1] = True
        return made
