"""Attention weights of critics over an episode: recorded, plotted, and shown next to the frames of a video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from ctde_kit.specs import TeamSpec
from ctde_kit.training.reporting.figures import new_figure, pixels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

MOST_PANELS = 12
N_COLUMNS = 3
# Width of the matrices next to a frame, as a share of the frame's height.
SIDE_WIDTH = 0.7
DPI = 100


class WeightRecord(Protocol):
    """Weights between agents over an episode, as ``beside_frames`` shows them."""

    title: str
    team: TeamSpec

    @property
    def weights(self) -> dict[str, Tensor]:
        """``[T, n_agents, N]`` for each group."""
        ...

    @property
    def labels(self) -> list[str]:
        """The names of the N agents."""
        ...


class AttentionRecord:
    """Records at every step how much each agent's value attends to each other agent.

    Args:
        critics: for each group, a module that writes ``(group, "attention_weight")`` ``[*B, n_agents, N]``; a critic of
            states, or one of the actions in the TensorDict.
        team: all groups; N is the number of their agents, in the order of the groups.
        env: which env of the batch.

    >>> import ctde_kit as ck
    >>> from ctde_kit.training import record_episode
    >>> from ctde_kit.training.reporting import AttentionRecord
    >>> env = ck.VmasEnv("navigation", num_envs=1, max_steps=5, scenario_kwargs={"n_agents": 3})
    >>> team = ck.TeamSpec.from_env(env)
    >>> critic = ck.modules.AttentionCritic(team, team["agents"], ck.MultiAgentMLP, embed_dim=8, n_heads=2)
    >>> record = AttentionRecord({"agents": critic}, team)
    >>> _ = record_episode(env, ck.modules.RandomActor(team["agents"]), None, seed=0, watch=record)
    >>> record.weights["agents"].shape
    torch.Size([5, 3, 3])
    """

    title = "who attends to whom"

    def __init__(self, critics: Mapping[str, TensorDictModuleBase], team: TeamSpec, env: int = 0):
        self.critics, self.team, self.env = dict(critics), team, env
        self._steps: dict[str, list[Tensor]] = {name: [] for name in self.critics}

    @torch.no_grad()
    def __call__(self, tensordict: TensorDictBase) -> None:
        """Record one env of a step ``[n_envs]``, which holds the policy's action."""
        data = tensordict.copy()
        for group in self.team:
            data.set(group.keys.action_vector, group.action.vector(data.get(group.keys.action)))
        for name, critic in self.critics.items():
            output = critic(data.select(*critic.in_keys))
            self._steps[name].append(output.get(self.team[name].keys.attention_weight)[self.env].cpu())

    @property
    def weights(self) -> dict[str, Tensor]:
        """The recorded weights ``[T, n_agents, N]`` for each group."""
        return {name: torch.stack(steps) for name, steps in self._steps.items()}

    @property
    def labels(self) -> list[str]:
        """The names of the N agents."""
        return agent_labels(self.team)


def agent_labels(team: TeamSpec) -> list[str]:
    """All agents' names, in the order of the groups: their numbers where there is one group."""
    groups = list(team)
    single = len(groups) == 1
    return [str(i) if single else f"{group.name} {i}" for group in groups for i in range(group.n_agents)]


def plot_attention(record: AttentionRecord, path: Path, title: str) -> Path:
    """Write a PNG with one heatmap over time for each agent, at most ``MOST_PANELS``. Returns ``path``.

    Args:
        record: of one episode.
        path: of the file; its directory exists.
        title: of the figure.

    >>> import tempfile
    >>> from pathlib import Path
    >>> import ctde_kit as ck
    >>> from ctde_kit.training import record_episode
    >>> from ctde_kit.training.reporting import AttentionRecord, plot_attention
    >>> env = ck.VmasEnv("navigation", num_envs=1, max_steps=5, scenario_kwargs={"n_agents": 3})
    >>> team = ck.TeamSpec.from_env(env)
    >>> critic = ck.modules.AttentionCritic(team, team["agents"], ck.MultiAgentMLP, embed_dim=8, n_heads=2)
    >>> record = AttentionRecord({"agents": critic}, team)
    >>> _ = record_episode(env, ck.modules.RandomActor(team["agents"]), None, seed=0, watch=record)
    >>> plot_attention(record, Path(tempfile.mkdtemp()) / "attention.png", "navigation").name
    'attention.png'
    """
    labels = record.labels
    panels = [(name, i) for name, weights in record.weights.items() for i in range(weights.shape[1])]
    left_out = len(panels) - MOST_PANELS
    panels = panels[:MOST_PANELS]
    n_columns = min(N_COLUMNS, len(panels))
    n_rows = -(-len(panels) // n_columns)
    height = 1.1 + 0.16 * min(len(labels), 40)
    figure = new_figure(max(7.0, 4.2 * n_columns), 0.9 + height * n_rows)
    axes = figure.subplots(n_rows, n_columns, squeeze=False).flatten()
    image: AxesImage | None = None
    for axis, (name, i) in zip(axes, panels, strict=False):
        weights = record.weights[name][:, i].T
        image = axis.imshow(weights.numpy(), vmin=0, vmax=1, cmap="viridis", aspect="auto", interpolation="nearest")
        agent = f"agent {i}" if len(list(record.team)) == 1 else f"{name} {i}"
        axis.set_title(f"{agent} attends to", fontsize=10)
        axis.set_xlabel("step")
        _label_rows(axis, labels)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    assert image is not None
    figure.colorbar(image, ax=axes[: len(panels)].tolist(), label="weight")
    figure.suptitle(title + (f" (the first {MOST_PANELS} of {len(panels) + left_out} agents)" if left_out > 0 else ""))
    figure.savefig(path, dpi=110)
    return path


def beside_frames(frames: Sequence[np.ndarray], record: WeightRecord) -> list[np.ndarray]:
    """Frames of a video with the weights of each step to their right, one matrix per group.

    Args:
        frames: uint8 ``[H, W, 3]``, one per step of the recorded episode; a further one, of its end, gets the last
            weights.
        record: of that episode: an ``AttentionRecord``, or, for agents that talk, a ``ListeningRecord`` or a
            ``HearingRecord``.

    >>> import numpy as np
    >>> import ctde_kit as ck
    >>> from ctde_kit.training import record_episode
    >>> from ctde_kit.training.reporting import AttentionRecord, beside_frames
    >>> env = ck.VmasEnv("navigation", num_envs=1, max_steps=2, scenario_kwargs={"n_agents": 3})
    >>> team = ck.TeamSpec.from_env(env)
    >>> critic = ck.modules.AttentionCritic(team, team["agents"], ck.MultiAgentMLP, embed_dim=8, n_heads=2)
    >>> record = AttentionRecord({"agents": critic}, team)
    >>> blank = lambda: np.zeros((100, 80, 3), dtype=np.uint8)
    >>> frames, _ = record_episode(env, ck.modules.RandomActor(team["agents"]), blank, seed=0, watch=record)
    >>> [frame.shape for frame in beside_frames(frames, record)]
    [(100, 150, 3), (100, 150, 3)]
    """
    height = frames[0].shape[0]
    figure = new_figure(SIDE_WIDTH * height / DPI, height / DPI, DPI)
    labels, weights = record.labels, record.weights
    images = []
    for axis, (name, matrix) in zip(
        figure.subplots(len(weights), 1, squeeze=False).flatten(), weights.items(), strict=True
    ):
        images.append(axis.imshow(matrix[0].numpy(), vmin=0, vmax=1, cmap="viridis", interpolation="nearest"))
        group = record.team[name]
        single = len(list(record.team)) == 1
        axis.set_title(f"{name}: {record.title}", fontsize=8)
        _label_rows(axis, [str(i) if single else f"{name} {i}" for i in range(group.n_agents)])
        step = _stride(len(labels))
        axis.set_xticks(range(0, len(labels), step), labels[::step], fontsize=7, rotation=0 if single else 90)
    widened = []
    for t, frame in enumerate(frames):
        for image, matrix in zip(images, weights.values(), strict=True):
            image.set_data(matrix[min(t, len(matrix) - 1)].numpy())
        widened.append(np.concatenate([frame, pixels(figure)[:height]], 1))
    return widened


def _label_rows(axis: Axes, labels: Sequence[str]) -> None:
    step = _stride(len(labels))
    axis.set_yticks(range(0, len(labels), step), labels[::step], fontsize=7)
    axis.tick_params(length=0)


def _stride(count: int) -> int:
    """The distance between labeled rows, so that there are at most ten labels."""
    return -(-count // 10)
