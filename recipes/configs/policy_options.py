"""The options of commands that take a trained policy: evaluate, watch, export."""

from __future__ import annotations

from dataclasses import dataclass, field

from ctde_kit.errors import UserError
from ctde_kit.recipes.configs.checks import check_choice, check_positive
from ctde_kit.recipes.configs.opponents import OpponentConfig

# Ways to act of the policy that was trained, and all that may act.
TRAINED = ("greedy", "sampled")
POLICIES = (*TRAINED, "random", "zero", "heuristic")
LAST = "last"
MOST_EPISODES = 1_000_000


@dataclass
class PolicyOptions:
    """Whose policy acts, where, and from which states.

    Args:
        policy: of the groups that learned: greedy, sampled, or in their place random, zero or heuristic.
        checkpoint: last, best, best_GROUP where groups compete, or the frames of another one.
        opponents: by group, who acts for it instead: a run directory, random, zero, heuristic, greedy_chase.
        episodes: how many; null for as many as the run's own evaluations have.
        seed: chooses the evaluation seeds, as a run's seed does; null for the run's.
        device: auto, cpu or cuda.
        trust: whether a user's own code that the run names, such as a scenario file, may be imported and run.
    """

    policy: str = "greedy"
    checkpoint: str = LAST
    opponents: dict[str, OpponentConfig] = field(default_factory=dict)
    episodes: int | None = None
    seed: int | None = None
    device: str = "auto"
    trust: bool = False

    def __post_init__(self) -> None:
        check_choice("policy", self.policy, POLICIES)
        check_choice("device", self.device, ("auto", "cpu", "cuda"))
        check_positive(episodes=self.episodes)
        if self.episodes is not None and self.episodes > MOST_EPISODES:
            raise UserError(f"episodes={self.episodes}: expected up to {MOST_EPISODES}")
        if self.seed is not None and not 0 <= self.seed < 2**32:
            raise UserError(f"seed={self.seed}: expected 0 to {2**32 - 1}")


@dataclass
class EvaluateConfig(PolicyOptions):
    """Options of ``ctde evaluate``.

    Args:
        output: a new file; null for one in each run's directory.
    """

    output: str | None = None


@dataclass
class ExportConfig(PolicyOptions):
    """Options of ``ctde export``.

    Args:
        format: onnx, or pt2 for ``torch.export``.
        output: a new directory; null for one in the run's.
    """

    format: str = "onnx"
    output: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("format", self.format, ("onnx", "pt2"))
        check_choice("policy", self.policy, ("greedy",))


@dataclass
class WatchConfig(PolicyOptions):
    """Options of ``ctde watch``.

    Args:
        show: which episodes, side by side: best, median, worst, or their numbers.
        height: of each in pixels.
        frames_per_second: of the video, one frame per step.
        output: a new file, .gif or .mp4; null for a GIF in the run's directory.
    """

    show: list[str] = field(default_factory=lambda: ["best", "median", "worst"])
    height: int = 320
    frames_per_second: float = 15.0
    output: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 40 <= self.height <= 2_000:
            raise UserError(f"height={self.height}: expected 40 to 2000 pixels")
        if not 1 <= self.frames_per_second <= 50:
            raise UserError(f"frames_per_second={self.frames_per_second}: expected 1 to 50")
        for name in self.show or [""]:
            if name not in ("best", "median", "worst") and not name.isdecimal():
                raise UserError(f"show={name}: expected best, median, worst, or the numbers of episodes")
