"""What a run shows: progress, loggers, learning curves, cross-play heatmaps, attention plots and videos."""

from ctde_kit.training.reporting.attention_plot import AttentionRecord, beside_frames, plot_attention
from ctde_kit.training.reporting.heatmap import plot_cross_play
from ctde_kit.training.reporting.patient_logger import PatientLogger
from ctde_kit.training.reporting.plots import plot_run, shown_returns
from ctde_kit.training.reporting.video import write_gif

__all__ = [
    "AttentionRecord",
    "PatientLogger",
    "beside_frames",
    "plot_attention",
    "plot_cross_play",
    "plot_run",
    "shown_returns",
    "write_gif",
]
