"""What a run shows: progress, loggers, learning curves, cross-play heatmaps, attention plots and videos."""

from ctde_kit.training.reporting.attention_plot import AttentionRecord, beside_frames, plot_attention
from ctde_kit.training.reporting.episode_video import record_chosen
from ctde_kit.training.reporting.heatmap import plot_cross_play
from ctde_kit.training.reporting.listening import ListeningRecord, listening_channels
from ctde_kit.training.reporting.patient_logger import PatientLogger
from ctde_kit.training.reporting.plots import plot_run, shown_returns
from ctde_kit.training.reporting.video import write_gif
from ctde_kit.training.reporting.video_grid import check_video, side_by_side, write_video

__all__ = [
    "AttentionRecord",
    "ListeningRecord",
    "PatientLogger",
    "beside_frames",
    "check_video",
    "listening_channels",
    "plot_attention",
    "plot_cross_play",
    "plot_run",
    "record_chosen",
    "shown_returns",
    "side_by_side",
    "write_gif",
    "write_video",
]
