"""Cross-play: every policy of one group plays against every policy of another group."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
from tensordict.nn import TensorDictModuleBase, TensorDictSequential
from torch import Tensor
from torchrl.envs import EnvBase

from ctde_kit.errors import UserError
from ctde_kit.training.evaluation import evaluate

Pairing = Mapping[str, TensorDictModuleBase]


@dataclass(frozen=True)
class CrossPlay:
    """The returns of all pairings: rows are the first group's policies, columns the second group's.

    Args:
        labels: names of the policies, for each group.
        returns: undiscounted returns, float ``[rows, columns, episodes, n_agents]``, for each group.

    >>> import torch
    >>> from ctde_kit.training import CrossPlay
    >>> returns = {"adversary": torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]]), "agent": torch.tensor([[[[-3.0], [-9.0]]]])}
    >>> table = CrossPlay({"adversary": ["chase"], "agent": ["random"]}, returns)
    >>> table.return_sum("adversary"), table.return_sum("agent")
    (tensor([[6.]]), tensor([[-6.]]))
    """

    labels: Mapping[str, list[str]]
    returns: Mapping[str, Tensor]

    def return_sum(self, group: str) -> Tensor:
        """The group's return ``[rows, columns]``: summed over agents, averaged over episodes."""
        return self.returns[group].sum(-1).mean(-1)

    def records(self) -> list[dict[str, str | float]]:
        """One row per pairing.

        Each row has one label per group, ``{group}/return_mean`` and ``{group}/return_sum`` as in an evaluation,
        ``{group}/return_sum_std`` (standard deviation over episodes) and ``episodes``.
        """
        first, second = self.labels
        return [
            {first: row, second: column, **self._metrics(i, j)}
            for (i, row), (j, column) in product(enumerate(self.labels[first]), enumerate(self.labels[second]))
        ]

    def _metrics(self, i: int, j: int) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for group, returns in self.returns.items():
            total = returns[i, j].sum(-1)
            metrics[f"{group}/return_mean"] = returns[i, j].mean().item()
            metrics[f"{group}/return_sum"] = total.mean().item()
            metrics[f"{group}/return_sum_std"] = total.std(unbiased=False).item()
            metrics["episodes"] = len(total)
        return metrics

    def write_csv(self, path: Path) -> Path:
        """Write ``records`` to the file ``path``, and return ``path``."""
        records = self.records()
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, records[0])
            writer.writeheader()
            writer.writerows(records)
        return path


def cross_play(
    sides: Mapping[str, Mapping[str, TensorDictModuleBase]],
    make_env: Callable[[Pairing], EnvBase],
    *,
    episodes: int,
    seed: int,
) -> CrossPlay:
    """Play every policy of one group against every policy of the other; all pairings start from the same states.

    Policies act greedily, except those that choose otherwise by themselves, such as a ``FrozenActor`` that samples.

    Args:
        sides: for each of the two groups its policies by label; each writes ``(group, "action")``.
        make_env: returns the env for a pairing, batch size ``[n_envs]``, with the transforms that its policies need,
            such as primers of hidden states. All pairings may share one base env, which is seeded and reset.
        episodes: episodes per pairing, rounded up to a multiple of ``n_envs``.
        seed: seeds env and policies; the program's random state is restored afterwards.

    Raises:
        UserError: unless there are exactly two groups, each with at least one policy.

    >>> from ctde_kit.envs.vmas import VmasEnv
    >>> from ctde_kit.modules import GreedyChase, RandomActor
    >>> from ctde_kit.specs import TeamSpec
    >>> from ctde_kit.training import cross_play
    >>> env = VmasEnv("simple_tag", num_envs=20, max_steps=30)
    >>> team = TeamSpec.from_env(env)
    >>> predators = {"random": RandomActor(team["adversary"]), "chase": GreedyChase(team["adversary"])}
    >>> sides = {"adversary": predators, "agent": {"random": RandomActor(team["agent"])}}
    >>> table = cross_play(sides, lambda pairing: env, episodes=20, seed=1_000_000).return_sum("adversary")
    >>> table.shape, bool(table[1, 0] > table[0, 0])
    (torch.Size([2, 1]), True)
    """
    if len(sides) != 2 or not all(sides.values()):
        counts = {group: len(policies) for group, policies in sides.items()}
        raise UserError(f"cross-play: expected two groups with policies, found {counts}; give policies for two groups")
    (first, rows), (second, columns) = sides.items()
    cells: dict[str, list[Tensor]] = {first: [], second: []}
    for row, column in product(rows.values(), columns.values()):
        policy = TensorDictSequential(row, column)  # pyright: ignore[reportArgumentType]  # it takes any TensorDict module
        env = make_env({first: row, second: column})
        returns = evaluate(env, policy, [first, second], episodes=episodes, seed=seed)
        for group, group_returns in returns.by_group.items():
            cells[group].append(group_returns)
    shape = (len(rows), len(columns))
    return CrossPlay(
        {first: list(rows), second: list(columns)},
        {group: torch.stack(returns).unflatten(0, shape) for group, returns in cells.items()},
    )
