"""The callback by which a member's run exchanges critics with the others (Distributed Genetic MADDPG)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ctde_kit.distributed.meeting_room import Scored
from ctde_kit.distributed.member import Meetings
from ctde_kit.distributed.messages import to_arrays, to_tensors
from ctde_kit.distributed.sync_schedule import SyncSchedule
from ctde_kit.protocols import StateDict
from ctde_kit.training import GroupCritics, Iteration, Parts, group_critics
from ctde_kit.training.group_critics import CriticState, Moments


class CriticExchange:
    """Called after each iteration: where it is time, scores the policy and takes over the best member's critics.

    Online and target critics are taken over, actors never (Zhou and Chen, "Distributed Multi-Agent Reinforcement
    Learning", Distributed Genetic MADDPG). After the last iteration there is no exchange, since nothing is learned from
    it. Its state is how many updates there were, and when the last exchange was.

    Args:
        meetings: where members meet.
        schedule: when.
        score: of these parts, as they are now: figures by name, of the same episodes in all members; more is better.
        judged: of these parts: by the name of each figure, the groups whose critics the best member by that figure
            gives to the others.
        moments: what the optimizer remembers of critics that are taken over: ``keep`` this member's own, ``reset``
            it, or ``copy`` the best member's.

    >>> from ctde_kit.distributed import CriticExchange, Meetings, SyncSchedule
    >>> from ctde_kit.recipes import MADDPGConfig, VmasTask, iterate
    >>> config = MADDPGConfig(task=VmasTask("vmas/navigation", n_envs=2), frames_per_batch=20, total_frames=40)
    >>> meetings = Meetings()
    >>> exchange = CriticExchange(
    ...     meetings, SyncSchedule(20, 40), lambda parts: {"return": 0.5}, lambda parts: {"return": ["agents"]}
    ... )
    >>> parts = config.build()
    >>> exchange.on_start(parts, 0)
    >>> meetings.answers.put({})  # this member is the best one
    >>> for iteration in iterate(parts):
    ...     exchange(parts, iteration, {})
    >>> came = meetings.came.get()
    >>> came.frames, came.scores, meetings.came.empty()
    (20, {'return': 0.5}, True)
    """

    def __init__(
        self,
        meetings: Meetings,
        schedule: SyncSchedule,
        score: Callable[[Parts], Mapping[str, float]],
        judged: Callable[[Parts], Mapping[str, Sequence[str]]],
        *,
        moments: Moments = "keep",
    ) -> None:
        self.meetings, self.schedule, self.score, self.judged = meetings, schedule, score, judged
        self.moments: Moments = moments
        self.updates = 0
        self._critics: dict[str, GroupCritics] = {}

    def on_start(self, parts: Parts, frames: int) -> None:
        """Find the critics.

        Raises:
            UserError: where the parts have none.
        """
        self._critics = group_critics(parts.update)

    def __call__(self, parts: Parts, iteration: Iteration, row: dict[str, float]) -> None:
        self.updates += int(iteration.metrics["num_updates"])
        is_last = iteration.frames >= self.schedule.total_frames
        if is_last or not self.schedule.is_due(iteration.frames, self.updates):
            return
        ours = {
            figure: {group: self._packed(group) for group in groups} for figure, groups in self.judged(parts).items()
        }
        theirs = self.meetings.exchange(Scored(iteration.frames, self.updates, self.score(parts), ours))
        for critics in theirs.values():
            for group, state in critics.items():
                self._critics[group].take(_unpacked(state), self.moments)

    def state_dict(self) -> StateDict:
        """Updates so far, and the count at the last exchange."""
        return {"updates": self.updates, "last": self.schedule.last}

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Restore what ``state_dict`` returned."""
        self.updates, self.schedule.last = state_dict["updates"], state_dict["last"]

    def _packed(self, group: str) -> CriticState:
        state = self._critics[group].state(moments=self.moments == "copy")
        return CriticState(to_arrays(state.networks), {name: to_arrays(of) for name, of in state.moments.items()})


def _unpacked(state: CriticState) -> CriticState:
    return CriticState(to_tensors(state.networks), {name: to_tensors(of) for name, of in state.moments.items()})
