"""Returns of whole episodes: their means for metrics, and a row per episode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations

import torch
from torch import Tensor


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
        are left out where groups compete; ``{group}/info/NAME_sum`` and ``..._last``, means over agents and episodes;
        and ``episodes``, the number of episodes.

        >>> import torch
        >>> from ctde_kit.training import Returns
        >>> won = torch.tensor([[1.0, 1.0], [0.0, 0.0]])  # two episodes of two agents, one of them won
        >>> Returns({"agents": won}, infos={"agents": {"won_sum": won}}).metrics()["agents/info/won_sum"]
        0.5
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
        for group, infos in self.infos.items():
            metrics |= {f"{group}/info/{name}": values.mean().item() for name, values in infos.items()}
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
