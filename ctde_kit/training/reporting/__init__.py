"""What a run leaves for the eye: learning curves, cross-play heatmaps, attention plots and videos."""

from ctde_kit.training.reporting.attention_plot import AttentionRecord, beside_frames, plot_attention
from ctde_kit.training.reporting.episode_video import record_chosen
from ctde_kit.training.reporting.heatmap import plot_cross_play
from ctde_kit.training.reporting.listening import ListeningRecord
from ctde_kit.training.reporting.plots import plot_run, shown_returns
from ctde_kit.training.reporting.video import write_gif
from ctde_kit.training.reporting.video_grid import side_by_side, write_video

__all__ = [
    "AttentionRecord",
    "ListeningRecord",
    "beside_frames",
    "plot_attention",
    "plot_cross_play",
    "plot_run",
    "record_chosen",
    "shown_returns",
    "side_by_side",
    "write_gif",
    "write_video",
]
