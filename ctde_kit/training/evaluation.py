"""Evaluation: returns of whole episodes of a policy, and the recording of one episode for a video."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType, set_exploration_type

from ctde_kit.keys import DONE, NEXT, TERMINATED, GroupKeys

GREEDY = ExplorationType("deterministic")  # made from its value, since type checkers take the attribute for a string
INFO = "info"
# A group, the name of what its env reports (none for its return), and whether that is a sum or the last value.
Entry = tuple[str, str, str]
LENGTH: Entry = ("", "length", "sum")
NUMBER: Entry = ("", "number", "last")
ENDED: Entry = ("", "terminated", "last")


@dataclass(frozen=True)
class Returns:
    """Undiscounted returns of whole episodes, and what else is known of them.

    Args:
        by_group: float ``[episodes, n_agents]`` for each group.
        lengths: steps of each episode, ``[episodes]``.
        terminated: which episodes ended by themselves, not by a time limit, bool ``[episodes]``.
        numbers: the number of each episode, ``[episodes]``. In evaluations with one seed, an env's first episode always
            has the same number and starts from the same state.
        infos: for each group what the env reported of each agent under ``(group, "info", NAME)``, ``[episodes,
            n_agents]``: ``NAME_sum`` over an episode's steps, and ``NAME_last`` of its last step.

    >>> import torch
    >>> from ctde_kit.training import Returns
    >>> returns = Returns({"agents": torch.tensor([[1.0, 2.0], [3.0, 6.0]])})  # two episodes of two agents
    >>> returns.metrics()["return_mean"], returns.metrics()["return_sum"]
    (3.0, 6.0)
    """

    by_group: Mapping[str, Tensor]
    lengths: Tensor | None = None
    terminated: Tensor | None = None
    numbers: Tensor | None = None
    infos: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)

    def metrics(self, groups_compete: bool = False) -> dict[str, float]:
        """Means over episodes of the return's mean and sum over agents, for each group and for all agents.

        ``{group}/return_mean`` and ``{group}/return_sum`` for each group; ``return_mean``, ``return_sum`` and
        ``return_std`` (the standard deviation over episodes of the mean over agents) for all agents together, which
        are left out where groups compete; and ``episodes``, the number of episodes.
        """
        metrics: dict[str, float] = {}
        for group, returns in self.by_group.items():
            metrics[f"{group}/return_mean"] = returns.mean(-1).mean().item()
            metrics[f"{group}/return_sum"] = returns.sum(-1).mean().item()
        all_agents = torch.cat(list(self.by_group.values()), -1)
        if not groups_compete:
            metrics["return_mean"] = all_agents.mean(-1).mean().item()
            metrics["return_sum"] = all_agents.sum(-1).mean().item()
            metrics["return_std"] = all_agents.mean(-1).std(unbiased=False).item()
        metrics["episodes"] = len(all_agents)
        return metrics

    def correlations(self) -> dict[tuple[str, str], float]:
        """The correlation over episodes of each two groups' summed returns; -1 where one wins what the other loses.

        It is nan where a return is the same in every episode, and for fewer than three episodes.

        >>> import torch
        >>> from ctde_kit.training import Returns
        >>> won, lost = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[-1.0], [-2.0], [-4.0]])
        >>> Returns({"hunters": won, "prey": lost}).correlations()
        {('hunters', 'prey'): -1.0}
        """
        sums = {group: returns.sum(-1).double() for group, returns in self.by_group.items()}
        return {
            (one, other): torch.corrcoef(torch.stack([sums[one], sums[other]]))[0, 1].item()
            if len(sums[one]) > 2
            else float("nan")
            for one, other in combinations(sums, 2)
        }

    def records(self, groups_compete: bool = False) -> list[dict[str, float]]:
        """One row per episode, in the order of their numbers.

        ``episode`` (its number), ``length``, ``{group}/return_mean`` and ``{group}/return_sum`` over agents,
        ``{group}/info/NAME_sum`` and ``..._last`` (means over agents), and ``return_mean`` and ``return_sum`` of all
        agents, which are left out where groups compete.

        >>> import torch
        >>> from ctde_kit.training import Returns
        >>> returns = Returns({"agents": torch.tensor([[1.0, 2.0], [3.0, 6.0]])}, lengths=torch.tensor([5, 7]))
        >>> returns.records(groups_compete=True)[1]
        {'episode': 1, 'length': 7, 'agents/return_mean': 4.5, 'agents/return_sum': 9.0}
        """
        columns: dict[str, Tensor] = {}
        all_agents = torch.cat(list(self.by_group.values()), -1)
        columns["episode"] = torch.arange(len(all_agents)) if self.numbers is None else self.numbers
        if self.lengths is not None:
            columns["length"] = self.lengths
        named = dict(self.by_group) if groups_compete else {"": all_agents, **self.by_group}
        for group, returns in named.items():
            prefix = f"{group}/" if group else ""
            columns[f"{prefix}return_mean"], columns[f"{prefix}return_sum"] = returns.mean(-1), returns.sum(-1)
        for group, infos in self.infos.items():
            columns |= {f"{group}/info/{name}": values.mean(-1) for name, values in infos.items()}
        rows = zip(*(values.tolist() for values in columns.values()), strict=True)
        return sorted((dict(zip(columns, row, strict=True)) for row in rows), key=lambda row: row["episode"])


@contextlib.contextmanager
def evaluating(policy: object) -> Iterator[None]:
    """Inside the block a module is in evaluation mode (without dropout, for example), afterwards all parts as before.

    >>> from torch import nn
    >>> from ctde_kit.training.evaluation import evaluating
    >>> network = nn.Dropout()
    >>> with evaluating(network):
    ...     network.training
    False
    >>> network.training
    True
    """
    if not isinstance(policy, nn.Module):  # a function can be a policy, too
        yield
        return
    modes = {part: part.training for part in policy.modules()}
    policy.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


@torch.no_grad()
def evaluate(
    env: EnvBase,
    policy: TensorDictModuleBase,
    groups: list[str],
    *,
    episodes: int,
    seed: int,
    exploration: ExplorationType = GREEDY,
) -> Returns:
    """The returns of at least ``episodes`` episodes.

    Each env of the batch contributes its first ``episodes / n_envs`` episodes, so that short episodes are not
    over-represented. The policy is in evaluation mode meanwhile.

    Args:
        env: an env that training does not use, batch size ``[n_envs]``; it is seeded and reset.
        policy: writes the actions of all groups.
        groups: names of the groups whose rewards are summed over time.
        episodes: rounded up to a multiple of ``n_envs``.
        seed: seeds env and policy; the program's random state is restored afterwards.
        exploration: how the policy acts; greedily by default.

    >>> import ctde_kit as ck
    >>> env = ck.VmasEnv("navigation", num_envs=2, max_steps=5, scenario_kwargs={"n_agents": 3})
    >>> policy = ck.modules.RandomActor(ck.TeamSpec.from_env(env)["agents"])
    >>> returns = ck.evaluate(env, policy, ["agents"], episodes=4, seed=0)
    >>> returns.by_group["agents"].shape, returns.lengths.tolist()
    (torch.Size([4, 3]), [5, 5, 5, 5])
    """
    n_envs = env.batch_size[0]
    quota = -(-episodes // n_envs)
    finished: dict[Entry, list[Tensor]] = {}
    with torch.random.fork_rng(), set_exploration_type(exploration), evaluating(policy):
        torch.manual_seed(seed)
        env.set_seed(seed)
        next_root = env.reset()
        running: dict[Entry, Tensor] = {}
        counts = torch.zeros(n_envs, dtype=torch.long, device=env.device)
        rows = torch.arange(n_envs, device=env.device)
        while counts.min() < quota:
            step, next_root = env.step_and_maybe_reset(policy(next_root))
            done = step[NEXT, DONE].squeeze(-1)
            valid_mask = done & (counts < quota)
            for entry, value in _summed(step, groups):
                total = running.get(entry, 0) + value
                finished.setdefault(entry, []).append(total[valid_mask])
                running[entry] = total.masked_fill(done.reshape(-1, *[1] * (total.ndim - 1)), 0)
            for entry, value in _last(step, groups):
                finished.setdefault(entry, []).append(value[valid_mask])
            finished.setdefault(NUMBER, []).append((counts * n_envs + rows)[valid_mask])
            counts += done
    return _returns({entry: torch.cat(values).cpu() for entry, values in finished.items()}, groups)


def _summed(step: TensorDictBase, groups: list[str]) -> Iterator[tuple[Entry, Tensor]]:
    """What is summed over an episode: its steps, each agent's rewards and what the env reports of each agent."""
    yield LENGTH, torch.ones_like(step[NEXT, DONE].squeeze(-1), dtype=torch.long)
    for group in groups:
        yield (group, "", ""), step[(NEXT, *GroupKeys(group).reward)].squeeze(-1)
        for name, value in _infos(step, group):
            yield (group, name, "sum"), value


def _last(step: TensorDictBase, groups: list[str]) -> Iterator[tuple[Entry, Tensor]]:
    """What is read at an episode's last step alone."""
    yield ENDED, step[NEXT, TERMINATED].squeeze(-1)
    for group in groups:
        for name, value in _infos(step, group):
            yield (group, name, "last"), value


def _infos(step: TensorDictBase, group: str) -> Iterator[tuple[str, Tensor]]:
    """The entries of ``(group, "info")`` that are one number per agent."""
    infos = step.get((NEXT, group, INFO), None)
    if infos is None:
        return
    for key, value in infos.items(include_nested=True, leaves_only=True):
        value = value.squeeze(-1) if value.ndim == infos.batch_dims + 1 and value.shape[-1] == 1 else value
        if value.shape == infos.batch_size:
            yield key if isinstance(key, str) else ".".join(key), value.float()


def _returns(found: Mapping[Entry, Tensor], groups: list[str]) -> Returns:
    named = {group: [entry for entry in found if entry[0] == group and entry[1]] for group in groups}
    return Returns(
        by_group={group: found[group, "", ""] for group in groups},
        lengths=found[LENGTH],
        terminated=found[ENDED],
        numbers=found[NUMBER],
        infos={group: {f"{name}_{how}": found[group, name, how] for _, name, how in named[group]} for group in groups},
    )


@torch.no_grad()
def record_episode(
    env: EnvBase,
    policy: TensorDictModuleBase,
    render: Callable[[], np.ndarray] | None,
    *,
    seed: int,
    watch: Callable[[TensorDictBase], None] | None = None,
) -> tuple[list[np.ndarray], TensorDictBase]:
    """The rendered images of one greedy episode of the batch's first env, and the episode's last step.

    Args:
        env: an env that training does not use; it is seeded and reset.
        policy: writes the actions of all groups.
        render: returns an image uint8 ``[H, W, 3]`` of the env's current state; ``None`` to render nothing.
        seed: seeds the env and what the policy samples, such as a random opponent's actions; the program's random state
            is restored afterwards.
        watch: called at each step with what the policy read and wrote.

    >>> import ctde_kit as ck
    >>> from ctde_kit.training import record_episode
    >>> env = ck.VmasEnv("navigation", num_envs=1, max_steps=5)
    >>> policy = ck.modules.RandomActor(ck.TeamSpec.from_env(env)["agents"])
    >>> actions = []
    >>> def watch(step):
    ...     actions.append(step["agents", "action"])
    >>> images, last = record_episode(env, policy, None, seed=0, watch=watch)
    >>> len(actions), last["next", "truncated"].item()
    (5, True)
    """
    frames = []
    with torch.random.fork_rng(), set_exploration_type(GREEDY), evaluating(policy):
        torch.manual_seed(seed)
        env.set_seed(seed)
        next_root = env.reset()
        while True:
            if render is not None:
                frames.append(render())
            acted = policy(next_root)
            if watch is not None:
                watch(acted)
            step = env.step(acted)
            if step[NEXT, DONE][0].item():
                return frames, step
            next_root = env.step_mdp(step)
