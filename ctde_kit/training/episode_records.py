"""What is known of each episode of an evaluation, beside its returns, and figures over all episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor

from ctde_kit.keys import DONE, NEXT, TERMINATED
from ctde_kit.training.evaluation import Returns

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


class EpisodeRecords:
    """The length, the end and the ``info`` entries of each episode: pass it to ``evaluate`` as ``watch``.

    Of each entry ``(group, "info", name)`` it keeps two figures per episode, means over agents and features: the sum
    over its steps, which is what a share of the reward needs, and the value at the last step, which is what a flag
    such as "success" needs.

    Args:
        groups: names of the groups.

    >>> import ctde_kit as ck
    >>> from ctde_kit.training import EpisodeRecords
    >>> env = ck.VmasEnv("navigation", num_envs=2, max_steps=5, info=True)
    >>> policy, records = ck.modules.RandomActor(ck.TeamSpec.from_env(env)["agents"]), EpisodeRecords(["agents"])
    >>> returns = ck.evaluate(env, policy, ["agents"], episodes=4, seed=0, watch=records)
    >>> episode = records.episodes(returns)[3]
    >>> episode["env"], episode["episode"], episode["length"], episode["terminated"]
    (1, 1, 5, False)
    >>> len(episode["groups"]["agents"]["returns"])
    4
    """

    def __init__(self, groups: Sequence[str]):
        self.groups = list(groups)
        self._length: Tensor | None = None
        self._played: Tensor
        self._sums: dict[tuple[str, str], Tensor] = {}
        self._rows: list[dict[str, Any]] = []

    def __call__(self, step: TensorDictBase, valid_mask: Tensor) -> None:
        """Take note of one step ``[n_envs]``, and of the episodes that end with it and count."""
        after = step[NEXT]
        done = after[DONE].squeeze(-1)
        if self._length is None:
            self._length, self._played = (
                torch.zeros_like(done, dtype=torch.long),
                torch.zeros_like(done, dtype=torch.long),
            )
        self._length += 1
        last = self._infos(after)
        for name, value in last.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        for env in valid_mask.nonzero().flatten().tolist():
            self._rows.append(self._row(env, after, last))
        self._played += valid_mask
        self._length.masked_fill_(done, 0)
        self._sums = {name: total.masked_fill(done, 0.0) for name, total in self._sums.items()}

    def _infos(self, after: TensorDictBase) -> dict[tuple[str, str], Tensor]:
        infos = {}
        for group in self.groups:
            entries = after.get((group, "info"), None)
            for name, value in {} if entries is None else sorted(entries.items()):
                infos[group, name] = value.double().flatten(1).mean(-1)
        return infos

    def _row(self, env: int, after: TensorDictBase, last: Mapping[tuple[str, str], Tensor]) -> dict[str, Any]:
        assert self._length is not None
        row: dict[str, Any] = {
            "env": env,
            "episode": int(self._played[env]),
            "length": int(self._length[env]),
            "terminated": bool(after[TERMINATED][env]),
        }
        row["groups"] = {}
        for group in self.groups:
            row["groups"][group] = {
                f"info/{name}_{kind}": float(values[owner, name][env])
                for kind, values in (("sum", self._sums), ("last", last))
                for owner, name in last
                if owner == group
            }
        return row

    def episodes(self, returns: Returns) -> list[dict[str, Any]]:
        """One row per episode, in the order of ``returns``.

        ``env`` and ``episode`` (the number of it in this env), ``length`` in steps, ``terminated`` (false where a time
        limit ended it), and in ``groups`` for each group ``returns`` (each agent's) and its ``info`` figures.
        """
        rows = []
        for i, row in enumerate(self._rows):
            groups = {
                name: {"returns": returns.by_group[name][i].tolist(), **infos} for name, infos in row["groups"].items()
            }
            rows.append({**row, "groups": groups})
        return rows


@dataclass(frozen=True)
class Distribution:
    """A figure's distribution over episodes.

    Args:
        mean: of all episodes.
        standard_error: of the mean; ``None`` for a single episode.
        iqm: the interquartile mean, of the middle half (Agarwal et al. 2021).
        quantiles: by their share.

    >>> from ctde_kit.training.episode_records import Distribution
    >>> Distribution.of([0.0, 1.0, 2.0, 9.0]).iqm
    1.5
    """

    mean: float
    standard_error: float | None
    iqm: float
    quantiles: Mapping[str, float]

    @classmethod
    def of(cls, values: Sequence[float]) -> Distribution:
        """The distribution of one value per episode."""
        ordered = torch.tensor(values, dtype=torch.float64).sort().values
        count = len(ordered)
        cut = count // 4
        return cls(
            mean=ordered.mean().item(),
            standard_error=(ordered.std() / count**0.5).item() if count > 1 else None,
            iqm=ordered[cut : count - cut].mean().item(),
            quantiles={f"{share:g}": ordered.quantile(share).item() for share in QUANTILES},
        )


def episode_figures(episodes: Sequence[Mapping[str, Any]], groups: Sequence[str]) -> dict[str, Distribution]:
    """By name, the distributions of what ``EpisodeRecords.episodes`` gives.

    ``length`` and ``terminated`` (as 0 and 1), and for each group ``{group}/return_mean`` and ``{group}/return_sum``
    over its agents, and its ``info`` figures.

    >>> from ctde_kit.training import episode_figures
    >>> rows = [{"length": 5, "terminated": False, "groups": {"agents": {"returns": [1.0, 3.0]}}}]
    >>> episode_figures(rows, ["agents"])["agents/return_mean"].mean
    2.0
    """
    figures: dict[str, list[float]] = {
        name: [float(episode[name]) for episode in episodes] for name in ("length", "terminated")
    }
    for group in groups:
        rows = [episode["groups"][group] for episode in episodes]
        figures[f"{group}/return_mean"] = [sum(row["returns"]) / len(row["returns"]) for row in rows]
        figures[f"{group}/return_sum"] = [sum(row["returns"]) for row in rows]
        for name in rows[0]:
            if name != "returns":
                figures[f"{group}/{name}"] = [row[name] for row in rows]
    return {name: Distribution.of(values) for name, values in figures.items()}
