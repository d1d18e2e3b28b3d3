"""Starting a worker env: its processes, the memory that they share, and the env in front of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch

from ctde_kit.cores import usable_cores
from ctde_kit.envs.workers.batched_env import WorkerEnv
from ctde_kit.envs.workers.block_layout import BlockLayout, flat_description, flat_shape, make_groups
from ctde_kit.envs.workers.pool import WorkerPool
from ctde_kit.errors import UserError


def worker_env(
    factory: Callable[[], object],
    *,
    n_envs: int,
    n_workers: int | None = None,
    max_steps: int | None = None,
    seed: int | None = None,
    group_map: Mapping[str, Iterable[str]] | None = None,
    return_state: bool | None = None,
    flatten: bool = False,
    infos: Iterable[str] = (),
    device: torch.device | str = "cpu",
    worker_timeout: float = 60.0,
) -> WorkerEnv:
    """Start ``n_envs`` environments that ``factory`` builds in ``n_workers`` processes.

    ``factory`` takes no argument and returns a PettingZoo ``ParallelEnv`` or ``AECEnv``. It is called in the workers,
    which are forked, so it need not pickle. An ``AECEnv`` is stepped in cycles where its metadata says
    ``is_parallelizable``, else turn by turn.

    Args:
        n_workers: processes; default: one per CPU core that this process may use, at most ``n_envs``. Their number
            does not change the data.
        max_steps: environment steps after which an episode is truncated; the environment's own limit (MPE2:
            ``max_cycles=25``) still holds.
        seed: env ``k`` is seeded from ``(seed, k)`` at its first reset and goes on with its own random stream from
            there; default: from the operating system. Torch's, numpy's and Python's generators of this process are not
            used. (Environments that draw from global generators are seeded too, but share them within a worker.)
        group_map: groups to lists of agents; default: as :func:`~ctde_kit.envs.workers.block_layout.make_groups`
            has it.
        return_state: whether ``state`` is written; default: where the environment has ``state()``, and it is a vector
            or a dictionary of numbers (whose entries are written one after the other), not a picture.
        flatten: observations and states of several dimensions are vectors, of up to 20,000 features.
        infos: names of numbers that the environment reports of its agents, such as ``success``: float32, under
            ``(group, "info", NAME)`` ``[n_envs, n_agents, 1]``, 0 in a step that does not report one.
        device: where the tensors that the env returns live.
        worker_timeout: seconds after which a worker that does not come back from one environment's step, reset or
            making is given up.

    Raises ``UserError`` for arguments out of range and environments that do not fit, and
    :class:`~ctde_kit.envs.workers.WorkerError` where the factory raises or a worker hangs.

    >>> from ctde_kit.envs.pettingzoo import pettingzoo_factory
    >>> from ctde_kit.envs.workers import worker_env
    >>> env = worker_env(pettingzoo_factory("mpe2/simple_tag_v3"), n_envs=4, n_workers=2, max_steps=10, seed=0)
    >>> env.rollout(3)["next", "adversary", "reward"].shape
    torch.Size([4, 3, 3, 1])
    >>> env.close()
    """
    _check("n_envs", n_envs)
    _check("max_steps", max_steps)
    _check("n_workers", n_workers)
    if not worker_timeout > 0:
        raise UserError(f"worker_timeout: expected seconds above 0, found {worker_timeout}")
    pool = WorkerPool(factory, n_envs, min(n_workers or usable_cores(), n_envs), worker_timeout)
    try:
        description = pool.description
        if return_state and description.state_shape is None:
            raise UserError("return_state: expected an environment with state(), found none; leave return_state out")
        state_shape = description.state_shape
        if return_state is False or (return_state is None and state_shape is not None and len(state_shape) != 1):
            state_shape = None
        if flatten:
            description, state_shape = flat_description(description), state_shape and flat_shape("state", state_shape)
        layout = BlockLayout(n_envs, make_groups(description, group_map), state_shape, max_steps, tuple(infos))
        return WorkerEnv(pool, layout, seed, torch.device(device))
    except BaseException:
        pool.close()
        raise


def _check(name: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise UserError(f"{name}: expected an integer >= 1, found {value}")
