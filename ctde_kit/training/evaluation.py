"""Evaluation: returns of whole episodes of a policy, and the recording of one episode for a video."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType, set_exploration_type

from ctde_kit.errors import UserError
from ctde_kit.keys import DONE, NEXT, TERMINATED, GroupKeys
from ctde_kit.training.episode_returns import Returns

logger = logging.getLogger("ctde_kit")
# After so many steps without the end of an episode, that is said.
LONG = 5_000
GREEDY = ExplorationType("deterministic")  # made from its value, since type checkers take the attribute for a string
INFO = "info"
# A group, the name of what its env reports (none for its return), and whether that is a sum or the last value.
Entry = tuple[str, str, str]
LENGTH: Entry = ("", "length", "sum")
NUMBER: Entry = ("", "number", "last")
ENDED: Entry = ("", "terminated", "last")


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
    over-represented. The policy is in evaluation mode meanwhile. Where no episode ends in 5,000 steps, a warning says
    so, and it goes on.

    Args:
        env: an env that training does not use, batch size ``[n_envs]``; it is seeded and reset.
        policy: writes the actions of all groups.
        groups: names of the groups whose rewards are summed over time.
        episodes: rounded up to a multiple of ``n_envs``.
        seed: seeds env and policy; the program's random state is restored afterwards.
        exploration: how the policy acts; greedily by default.

    Raises:
        UserError: for groups that the env does not have.

    >>> import ctde_kit as ck
    >>> env = ck.VmasEnv("navigation", num_envs=2, max_steps=5, scenario_kwargs={"n_agents": 3})
    >>> policy = ck.modules.RandomActor(ck.TeamSpec.from_env(env)["agents"])
    >>> returns = ck.evaluate(env, policy, ["agents"], episodes=4, seed=0)
    >>> returns.by_group["agents"].shape, returns.lengths.tolist()
    (torch.Size([4, 3]), [5, 5, 5, 5])
    """
    _check_groups(env, groups)
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
        steps = 0
        while counts.min() < quota:
            if steps == LONG and not counts.any():
                logger.warning("no episode has ended in %d steps: an env that never ends one needs max_steps", LONG)
            steps += 1
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


def _check_groups(env: EnvBase, groups: list[str]) -> None:
    """Raise ``UserError`` unless ``groups`` are names of groups for which the env writes rewards."""
    known = [key[0] for key in env.reward_keys if isinstance(key, tuple)]
    if isinstance(groups, str):
        raise UserError(f"groups={groups!r}: expected a list of names, such as {known}")
    for name in groups:
        if known and name not in known:
            raise UserError(f"groups={groups}: this env has no group {name!r}; expected some of {known}")


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


def reported_metrics(env: EnvBase, groups: Sequence[str]) -> list[str]:
    """The metrics of ``Returns`` that the env itself reports: ``{group}/info/NAME_sum`` and ``..._last``.

    >>> import ctde_kit as ck
    >>> from ctde_kit.training import reported_metrics
    >>> reported_metrics(ck.VmasEnv("navigation", num_envs=2, info=True), ["agents"])[:2]
    ['agents/info/pos_rew_sum', 'agents/info/pos_rew_last']
    """
    step = TensorDict({NEXT: env.observation_spec.zero()}, env.batch_size)
    return [
        f"{group}/{INFO}/{name}_{how}" for group in groups for name, _ in _infos(step, group) for how in ("sum", "last")
    ]


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
