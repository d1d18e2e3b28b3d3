"""Observations and states, standardized by their running mean and deviation."""

from __future__ import annotations

from collections.abc import Iterator

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import nn

from ctde_kit.entries import required_entry, valid_agents
from ctde_kit.errors import UserError
from ctde_kit.keys import PADDING_MASK, STATE, Key, normalized_key
from ctde_kit.modules.keyword_calls import keyword_calls
from ctde_kit.modules.networks.inputs import Input, entry_name
from ctde_kit.modules.normalization.running_moments import RunningMoments
from ctde_kit.specs import TeamSpec


class ObservationNorm(TensorDictModuleBase):
    """Running statistics of a team's observations and states, by which its networks read them normalized.

    TorchRL's ``ObservationNorm`` and ``VecNormV2`` are env transforms. What they write is stored, so a replay buffer
    holds observations in many different units. ``VecNormV2`` also counts dead agents, moves within a batch, and is not
    part of the policy, so a file of the policy lacks it. Here batches and replay buffers hold what the env showed, and
    networks read it through these statistics (``attach``). Actors, critics and mixers all use the same, current
    statistics, which are in the ``state_dict`` of each; a copied, evaluated or exported policy contains them.

    Each group's observation ``(group, "observation")`` and agent-specific state ``(group, "state")``, and the root
    ``state``, have statistics of their own: of each of the F features over agents, envs and steps. Dead agents and
    padding are left out. Only ``update`` moves the statistics. Call it after a batch has been learned from, as
    ``iterate`` does with ``Parts.observation_norm``: a batch is then collected and learned with the same statistics,
    and PPO's first ratio is 1. The target networks of the kit's losses share the statistics of the online ones.

    Networks that are not the kit's use it as a TensorDict module, ``TensorDictSequential(norm, network)``: it writes
    ``(group, "normalized_observation")`` and so on, with zeros for dead agents.

    Args:
        team: all groups, with the states that networks read.
        clip: largest absolute value of a normalized feature; ``None`` for no limit.

    >>> import ctde_kit as ck
    >>> env = ck.VmasEnv("navigation", num_envs=2, max_steps=5)
    >>> team = ck.TeamSpec.from_env(env)
    >>> group = team["agents"]
    >>> network = ck.MultiAgentMLP(group.observation_dim, group.action.n_parameters, group.n_agents)
    >>> actor = ck.MultiAgentActor(group, ck.own_observation(group), network)
    >>> critic = ck.value_critic(team, group, ck.MultiAgentMLP)
    >>> norm = ck.ObservationNorm(team)
    >>> norm.attach(actor, critic)
    >>> norm.update(env.rollout(5, actor))
    >>> int(norm.moments_of(group.keys.observation).count)  # 2 envs, 5 steps, 4 agents
    40
    """

    in_keys: list[Key]
    out_keys: list[Key]

    def __init__(self, team: TeamSpec, *, clip: float | None = 10.0):
        super().__init__()
        sizes: dict[Key, int] = {} if team.state_dim is None else {STATE: team.state_dim}
        self._masks: dict[Key, Key] = {}
        for group in team:
            read = {group.keys.observation: group.observation_dim, group.keys.state: group.state_dim}
            found: dict[Key, int] = {key: size for key, size in read.items() if size is not None}
            sizes |= found
            self._masks |= dict.fromkeys(found, group.keys.mask) if group.mask else {}
        self._keys = list(sizes)
        self.moments = nn.ModuleDict({entry_name(key): RunningMoments(size, clip) for key, size in sizes.items()})
        self.in_keys = list(dict.fromkeys([*self._keys, *self._masks.values()]))
        self.out_keys = [normalized_key(key) for key in self._keys]

    def moments_of(self, key: Key) -> RunningMoments:
        """The statistics of the entry at ``key``.

        Raises:
            UserError: for an entry that it does not normalize.
        """
        if key not in self._keys:
            raise UserError(f"ObservationNorm: key {key!r}: expected one of {', '.join(map(str, self._keys))}")
        moments = self.moments[entry_name(key)]
        assert isinstance(moments, RunningMoments)
        return moments

    def attach(self, *modules: nn.Module) -> None:
        """Let all networks in ``modules`` read their entries through these statistics.

        If this object has no statistics yet, it copies those that a module already reads through, such as those of an
        actor whose state was loaded.

        Raises:
            UserError: for a module that reads such an entry by itself instead of through an ``Input``.
        """
        for module in modules:
            for key, inputs in self._readers(module):
                moments = self.moments_of(key)
                for reader in inputs:
                    before = reader.normalizer(key)
                    if isinstance(before, RunningMoments) and before.count > 0 and not moments.count > 0:
                        moments.load_state_dict(before.state_dict())
                    reader.normalize_entry(key, moments)

    def _readers(self, module: nn.Module) -> Iterator[tuple[Key, list[Input]]]:
        """The inputs in ``module`` that read each key."""
        inputs = [part for part in module.modules() if isinstance(part, Input)]
        is_normalized = any(isinstance(part, ObservationNorm) for part in module.modules())
        read_keys = list(module.in_keys) if isinstance(module, TensorDictModuleBase) else []
        for key in self._keys:
            readers = [part for part in inputs if part.reads(key)]
            if not readers and key in read_keys and not is_normalized:
                raise UserError(
                    f"ObservationNorm: {type(module).__name__} reads {key} by itself; make it read "
                    f"{normalized_key(key)}, after this norm in a TensorDictSequential(norm, network)"
                )
            yield key, readers

    def update(self, batch: TensorDictBase) -> None:
        """Update the statistics with a fresh batch ``[n_envs, T]``, without dead agents and padding."""
        for key in self._keys:
            value = required_entry(batch, key)
            valid = batch.get(PADDING_MASK, None)
            valid = None if valid is None else valid.reshape(batch.shape)
            if isinstance(key, tuple):
                valid = valid_agents(batch, self._masks.get(key), PADDING_MASK, key)
            self.moments_of(key).update(value, valid)

    @keyword_calls()
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        for key, out_key in zip(self._keys, self.out_keys, strict=True):
            value = self.moments_of(key)(required_entry(tensordict, key))
            if key in self._masks:
                value = value.masked_fill(~required_entry(tensordict, self._masks[key]).unsqueeze(-1), 0)
            tensordict.set(out_key, value)
        return tensordict
